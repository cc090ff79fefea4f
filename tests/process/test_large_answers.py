"""Large answers through the whole daemon: refused where they are too large, given where they may be, harming nobody."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import onnx
import pytest

from tests.support import onnx_models, zmtp
from tests.support.daemon import Daemon, tenant, wait_until
from trtd.core.ids import RequestId
from trtd.errors import TooLarge
from trtd.wire import codec
from trtd.wire.messages import Dtype, InferRequest, TensorSpec

GIB = 1 << 30
INT64 = onnx.TensorProto.INT64
ROW = np.full((1, 4), 3.0, np.float32)


def filled() -> bytes:
    """`n` int64 [1] to `y` float32 of so many elements, all 0: a few bytes in, as many out as one likes."""
    value, node = onnx_models.value, onnx_models.node
    nodes = [node("ConstantOfShape", ["n"], ["y"])]
    return onnx_models.make_model(nodes, [value("n", [1], INT64)], [value("y", ["k"])])


@pytest.fixture
def serve(make_daemon, tmp_path):
    """Start a daemon with this model for tenant `a`, and a neighbour `b`."""
    (tmp_path / "filled.onnx").write_bytes(filled())

    def serve(**queue: int) -> Daemon:
        models = {"filled": {"path": str(tmp_path / "filled.onnx")}}
        daemon = make_daemon({"a": {"models": models, "queue": queue}, "b": tenant()}).start()
        daemon.wait_ready()
        return daemon

    return serve


def elements(size_bytes: int) -> dict[str, np.ndarray]:
    """The input that asks for so many bytes."""
    return {"n": np.array([size_bytes // 4], np.int64)}


def ask(size_bytes: int) -> bytes:
    """The same as a message on a connection that speaks ZMTP by hand."""
    spec = TensorSpec("n", Dtype.INT64, (1,))
    header = codec.encode_client_message(InferRequest(RequestId(uuid.uuid4().bytes), "filled", None, (spec,), 60.0))
    return zmtp.frame(header, zmtp.MORE) + zmtp.frame(elements(size_bytes)["n"].tobytes())


@contextmanager
def neighbour(daemon: Daemon) -> Iterator[None]:
    """Callers of `b`, who have to be answered rightly all the time; the router has to be the same one throughout."""
    router = daemon.status()["router"]
    is_over = threading.Event()
    answered = []

    def call() -> None:
        with daemon.client("b") as client:
            while not is_over.is_set():
                answered.append(bool((client.infer("echo", {"x": ROW})["x"] == ROW).all()))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert answered
    assert all(answered)
    after = daemon.status()["router"]
    assert (after["generation"], after["pid"]) == (router["generation"], router["pid"])


def test_a_gibibyte_from_eight_bytes_is_refused(serve):
    """The client gets a typed error that names the size, the limit and its key, and is served on; so are the others."""
    daemon = serve()
    with neighbour(daemon), daemon.client("a") as client:
        for _ in range(2):
            with pytest.raises(TooLarge, match=r"1073741824 bytes.*output 'y'.*67108864 \(queue.max_answer_bytes\)"):
                client.infer("filled", elements(GIB), timeout=60)
            assert client.infer("filled", elements(1 << 20))["y"].shape == (1 << 18,)
    assert daemon.worker("a")["generation"] == 1


def test_a_gibibyte_is_given_where_it_may_be(serve):
    """It comes whole in frames; what fits the client's shared memory comes there from the second time on."""
    daemon = serve(max_answer_bytes=GIB)
    smaller = 160 << 20
    with neighbour(daemon), daemon.client("a") as client:
        for number, size in enumerate((smaller, smaller, GIB)):
            outputs = client.infer("filled", elements(size), timeout=120)
            assert outputs["y"].shape == (size // 4,)
            assert not outputs["y"].any()
            if number == 1:
                wait_until(lambda: daemon.tenant("a")["arena_bytes"] >= smaller, "the shared memory with the answer")
            del outputs


def test_who_never_reads_large_answers_harms_nobody(serve):
    """Stopped clients have 2 GiB of answers coming; others of the same tenant and of another are answered meanwhile."""
    daemon = serve()
    with ExitStack() as stack:
        sleepers = [stack.enter_context(zmtp.shake_hands(str(daemon.runtime_dir / "a.sock"))) for _ in range(8)]
        size = 60 << 20
        with neighbour(daemon), daemon.client("a") as client:
            for _ in range(4):
                for sleeper in sleepers:
                    # One that was given up is gone.
                    with suppress(OSError):
                        sleeper.sendall(ask(size))
                assert client.infer("filled", elements(size), timeout=120)["y"].shape == (size // 4,)
            daemon.wait_status(lambda it: it["tenants"][0]["leased"] == 0, "an answer to all", 60)
