"""The blocking client against a router whose every answer the test decides."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zmq

from tests.support.client_router import WAIT_S, StandInRouter
from trtd.client import Answer, BFloat16, Client, CurveKeys, Float8, Handle, forks, pending
from trtd.client.transport import ZERO_COPY_BYTES
from trtd.core.ids import RequestId
from trtd.errors import (
    DeadlineExceeded,
    ErrorCode,
    InvalidInput,
    Malformed,
    NotAllowed,
    Overloaded,
    Unreachable,
    UnsupportedDtype,
    UnsupportedVersion,
    Usage,
)
from trtd.wire import codec
from trtd.wire.messages import (
    MAX_TENSORS,
    Dtype,
    ErrorAnswer,
    InferAnswer,
    InferRequest,
    ModelDescription,
    TensorContract,
    TensorSpec,
    Timing,
)
from trtd.wire.tensors import FLOAT8S


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/a.sock"


@pytest.fixture
def router(address: str) -> Iterator[StandInRouter]:
    with StandInRouter(address) as router:
        yield router


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=WAIT_S) as client:
        yield client


def x(value: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 4), value, dtype=np.float32)}


def echo(router: StandInRouter) -> None:
    router.serve(router.answer)


def test_every_kind_of_tensor_travels_both_ways(router, client):
    """Arrays of all dtypes, of no elements, of no dimensions, strided, big-endian and large come back equal."""
    echo(router)
    inputs = {
        dtype.value: np.arange(6).reshape(2, 3).astype(dtype.value)
        for dtype in Dtype
        if dtype is not Dtype.BFLOAT16 and dtype not in FLOAT8S
    }
    inputs |= {
        "empty": np.zeros((0, 3), dtype=np.int8),
        "scalar": np.array(2.5),
        "strided": np.arange(20, dtype=np.int16)[::2],
        "big": np.arange(5, dtype=">f8"),
        "large": np.arange(ZERO_COPY_BYTES, dtype=np.int32),
        "bf16": BFloat16.from_float32([1.0, -2.5]),
    }
    inputs |= {dtype.value: Float8.from_float32([1.0, 2.0], dtype) for dtype in FLOAT8S}
    answer = client.infer("m", inputs, version="3")
    assert (answer.model, answer.version, answer.generation) == ("m", "3", 7)
    for name, value in inputs.items():
        if isinstance(value, BFloat16 | Float8):
            assert isinstance(answer[name], type(value))
            np.testing.assert_array_equal(answer[name].bits, value.bits)
        else:
            np.testing.assert_array_equal(answer[name], value)
            assert answer[name].shape == value.shape


def test_an_answer_says_where_the_time_went(router, client):
    """Queue, batch and compute come from the daemon, the total from this side's clock; arrays are read-only."""
    echo(router)
    answer = client.infer("m", x())
    assert (answer.timing.queue_s, answer.timing.batch_s) == pytest.approx((10e-6, 20e-6))
    assert answer.timing.compute_s == pytest.approx(30e-6)
    assert 0 < answer.timing.total_s < WAIT_S
    with pytest.raises(ValueError, match="read-only"):
        answer["x"][0, 0] = 2.0


def test_the_request_carries_what_the_caller_says(router, client):
    """Model, version, timeout and priority stand in the message; the client's own timeout where the call names none."""
    client.submit("m", x(), version="2", timeout=5.0, priority=-3)
    message = router.receive().message
    assert isinstance(message, InferRequest)
    assert (message.model, message.version, message.priority) == ("m", "2", -3)
    # A little of it was spent on connecting.
    assert message.timeout_s == pytest.approx(5.0, abs=2.0)
    assert not message.is_resent
    client.submit("m", x())
    message = router.receive().message
    assert isinstance(message, InferRequest)
    assert (message.version, message.timeout_s, message.priority) == (None, WAIT_S, 0)


def test_typed_errors_come_out_of_the_call(router, client):
    """An error of the daemon is raised as the type of its code, with its text and its advice on when to retry."""
    handle = client.submit("m", x())
    router.refuse(router.receive(), ErrorCode.OVERLOADED, "the queue is full", 0.5)
    with pytest.raises(Overloaded, match="the queue is full") as caught:
        handle.result()
    assert caught.value.retry_after_s == 0.5
    assert isinstance(handle.exception(), Overloaded)


def test_a_code_of_a_newer_daemon_is_kept(router, client):
    """An error with a code that this client does not know is still an error, with the code in its text."""
    handle = client.submit("m", x())
    received = router.receive()
    router.reply(received, codec.encode_router_message(ErrorAnswer(received.message.id, "tired", "come back")))
    assert "tired: come back" in str(handle.exception())


def test_descriptions_and_health(router, client):
    """Models are described and health is told over the same connection."""
    model = ModelDescription("m", "1", (TensorContract("x", Dtype.INT8, (None, 3)),), (), True, 4)

    def handler(received):
        if hasattr(received.message, "model"):
            router.describe(received, (model,))
        else:
            router.tell_health(received, "waiting")

    router.serve(handler)
    assert client.describe() == (model,)
    health = client.health()
    assert (health.is_ready, health.state, health.reason) == (False, "waiting", "why")


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"x": np.array(["a"])}, UnsupportedDtype),
        ({f"x{number}": np.zeros(1) for number in range(MAX_TENSORS + 1)}, InvalidInput),
    ],
)
def test_inputs_that_cannot_travel_are_refused_here(router, client, inputs, error):
    """Strings and too many inputs are refused in the call, and nothing is sent."""
    with pytest.raises(error):
        client.infer("m", inputs)
    assert router.poll() is None


def test_an_address_that_is_none():
    """Something that is no address, or too long for a socket's path, is refused at once and names itself."""
    for address in ("a.sock", "ipc://" + "x" * 200):
        with pytest.raises(Usage, match="cannot be connected to"):
            Client(address)


def test_no_daemon(address, tmp_path):
    """Without a daemon a call ends after its timeout as unreachable, with the address and what is there."""
    with Client(address) as client:
        with pytest.raises(Unreachable, match=r"a\.sock within 0\.05 s: there is no socket at that path"):
            client.infer("m", x(), timeout=0.05)
        (tmp_path / "a.sock").touch()
        with pytest.raises(Unreachable, match="nobody listens on that socket"):
            client.health(timeout=0.05)


def test_a_daemon_that_comes_late(address, client):
    """A request that was made before the daemon started is answered when it is there."""
    handle = client.submit("m", x())
    with StandInRouter(address) as router:
        router.answer(router.receive())
        np.testing.assert_array_equal(handle.result()["x"], x()["x"])


def test_a_daemon_that_does_not_answer(router, client, monkeypatch):
    """When not even the daemon's own word on a deadline comes, the client says so after a grace."""
    monkeypatch.setattr(pending, "GRACE_S", 0.05)
    began_at = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.1 s, nor in 0\.05 s after"):
        client.infer("m", x(), timeout=0.1)
    assert time.monotonic() - began_at >= 0.15
    router.answer(router.receive())
    handle = client.submit("m", x(2.0))
    router.answer(router.receive())
    assert handle.result()["x"][0, 0] == 2.0


def test_a_shorter_deadline_behind_a_longer_one(router, client, monkeypatch):
    """While one thread waits long, another one's short deadline is still kept."""
    monkeypatch.setattr(pending, "GRACE_S", 0.01)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.infer, "m", x())
        first = router.receive()
        with pytest.raises(DeadlineExceeded):
            client.infer("m", x(), timeout=0.05)
        router.answer(first)
        assert slow.result(WAIT_S).model == "m"


def test_a_restarted_router_gets_what_is_unanswered(address):
    """After a reconnection the same ids come again, marked, with the time that is left, and are answered once."""
    router = StandInRouter(address)
    with Client(address, timeout=WAIT_S) as client:
        handles = [client.submit("m", x(value)) for value in range(3)]
        first = [router.receive() for _ in handles]
        router.answer(first[1])
        handles[1].result()
        router.close()
        with StandInRouter(address) as successor:
            again = [successor.receive(), successor.receive()]
            assert [each.message.id for each in again] == [first[0].message.id, first[2].message.id]
            for each in again:
                assert isinstance(each.message, InferRequest)
                assert each.message.is_resent
                assert each.message.timeout_s is not None
                assert each.message.timeout_s < WAIT_S
                successor.answer(each)
            assert [handle.result()["x"][0, 0] for handle in handles] == [0.0, 1.0, 2.0]
            assert successor.poll(0.05) is None


def test_a_blocked_call_survives_a_restart(address):
    """A call that waits while the router is replaced gets its answer from the successor."""
    router = StandInRouter(address)
    with Client(address, timeout=WAIT_S) as client, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(client.infer, "m", x(value)) for value in range(8)]
        for _ in futures:
            router.receive()
        router.close()
        with StandInRouter(address) as successor:
            echo(successor)
            assert [future.result(WAIT_S)["x"][0, 0] for future in futures] == list(range(8))


def test_second_answers_are_dropped(router, client):
    """An answer that comes twice reaches its caller once and disturbs no other request."""
    handle = client.submit("m", x(1.0))
    received = router.receive()
    router.answer(received)
    router.answer(received)
    assert handle.result()["x"][0, 0] == 1.0
    handle = client.submit("m", x(2.0))
    router.answer(received)
    router.answer(router.receive())
    assert handle.result()["x"][0, 0] == 2.0


def test_answers_find_their_requests_in_any_order(router, client):
    """Answers that come in reverse order reach the right callers."""
    handles = [client.submit("m", x(value)) for value in range(20)]
    for received in reversed([router.receive() for _ in handles]):
        router.answer(received)
    assert [handle.result()["x"][0, 0] for handle in handles] == list(range(20))


def test_not_allowed(address):
    """A daemon that refuses the user makes pending and new requests fail as not allowed, long before their timeout."""
    with StandInRouter(address, zap_status=b"400"), Client(address, timeout=WAIT_S) as client:
        for _ in range(2):
            with pytest.raises(NotAllowed, match=r"refused this user or key at .*a\.sock"):
                client.infer("m", x())


def test_access_that_was_granted_meanwhile(address):
    """Refusals that are over when a call is made do not count against it."""
    refusing = StandInRouter(address, zap_status=b"400")
    with Client(address, timeout=WAIT_S) as client:
        with pytest.raises(NotAllowed):
            client.infer("m", x())
        refusing.close()
        with StandInRouter(address) as router:
            # Connected, but by nobody's turn noticed: the next call finds the old refusals and the new connection.
            assert router._socket.poll(0) == 0
            echo(router)
            deadline = time.monotonic() + WAIT_S
            while True:
                try:
                    assert client.infer("m", x()).model == "m"
                    break
                except NotAllowed:
                    assert time.monotonic() < deadline


def test_curve_keys_over_tcp():
    """With the right keys a tcp endpoint answers; with another server key the client says what is wrong."""
    server_public, server_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_SECRETKEY, server_secret)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    address = f"tcp://127.0.0.1:{port}"
    keys = CurveKeys(server_public.decode(), public.decode(), secret.decode())
    with Client(address, timeout=WAIT_S, curve=keys) as client:
        handle = client.submit("m", x())
        route, header, tensor = socket.recv_multipart()
        message = codec.decode_client_message(header)
        assert isinstance(message, InferRequest)
        answer = InferAnswer(message.id, "m", "1", 1, message.inputs, Timing(0, 0, 0))
        socket.send_multipart([route, codec.encode_router_message(answer), tensor])
        assert handle.result()["x"][0, 0] == 1.0
    wrong = CurveKeys(public.decode(), public.decode(), secret.decode())
    with Client(address, curve=wrong) as client, pytest.raises(Unreachable, match="no daemon answered"):
        client.infer("m", x(), timeout=0.1)
    with pytest.raises(Usage):
        Client(address, curve=CurveKeys("short", "short", "short"))
    context.destroy(linger=0)


def test_an_older_daemon_is_told_apart_from_a_silent_one(router, client):
    """A refusal that names no request, as a daemon of another version sends it, reaches the request it answers."""
    handle = client.submit("m", x())
    received = router.receive()
    unknown = ErrorAnswer(RequestId(bytes(16)), ErrorCode.UNSUPPORTED_VERSION, "v: this side speaks wire version 9")
    router.reply(received, codec.encode_router_message(unknown))
    with pytest.raises(UnsupportedVersion, match="version 9"):
        handle.result()


def test_an_answer_that_does_not_fit_its_header(router, client):
    """Tensor frames of the wrong size or number fail their request as malformed, and no other."""
    for frames in ([b"12"], [], [b"1234", b"1234"]):
        handle = client.submit("m", x())
        received = router.receive()
        spec = TensorSpec("y", Dtype.FLOAT32, (1,))
        answer = InferAnswer(received.message.id, "m", "1", 1, (spec,), Timing(0, 0, 0))
        router.reply(received, codec.encode_router_message(answer), frames)
        with pytest.raises(Malformed, match="frame"):
            handle.result()


def test_rubbish_is_nobodys_answer(router, client):
    """Frames that are no message at all change nothing; the true answer still arrives."""
    handle = client.submit("m", x())
    received = router.receive()
    for header in (b"", b"\xc1", b"\x80" * 5000):
        router.reply(received, header)
    router.answer(received)
    assert handle.result().model == "m"


def test_many_threads_on_one_connection(router, client):
    """Requests of many threads run side by side over one connection and each gets its own answer."""
    routes = set()

    def handler(received):
        routes.add(received.route)
        router.answer(received)

    router.serve(handler)

    def call(number: int) -> bool:
        return all(client.infer("m", x(number * 1000 + turn))["x"][0, 0] == number * 1000 + turn for turn in range(100))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(16)))
    assert len(routes) == 1
    assert router.served == 1600


def test_more_requests_than_a_connection_takes(router, client):
    """Thousands of requests while the daemon does not read are kept here and sent when it does."""
    handles = [client.submit("m", x(value)) for value in range(5000)]
    echo(router)
    assert [handle.result(WAIT_S)["x"][0, 0] for handle in handles] == list(range(5000))


def test_callbacks_run_though_nobody_waits(router, client):
    """A callback is called once its request has ended, at once when that was before, and its defects hurt nobody."""
    seen: list[float] = []
    done = threading.Event()

    def callback(handle):
        seen.append(handle.result()["x"][0, 0])
        if len(seen) == 3:
            done.set()
        if len(seen) == 2:
            raise RuntimeError("a defect of the callback's")

    handles = [client.submit("m", x(value)) for value in (1.0, 2.0)]
    for handle in handles:
        handle.add_done_callback(callback)
    for _ in handles:
        router.answer(router.receive())
    handles[0].result()
    handles[0].add_done_callback(callback)
    assert done.wait(WAIT_S)
    assert sorted(seen) == [1.0, 1.0, 2.0]


def test_a_callback_may_use_the_client(router, client):
    """A callback may block on requests of its own, and submit more."""
    echo(router)
    done = threading.Event()
    results: list[float] = []

    def callback(_):
        results.append(client.infer("m", x(2.0))["x"][0, 0])
        client.submit("m", x(3.0)).add_done_callback(
            lambda handle: (results.append(handle.result()["x"][0, 0]), done.set())
        )

    client.submit("m", x(1.0)).add_done_callback(callback)
    assert done.wait(WAIT_S)
    assert results == [2.0, 3.0]


def test_waiting_for_a_handle_has_its_own_limit(router, client):
    """`result(timeout)` gives up waiting, not the request."""
    handle = client.submit("m", x())
    received = router.receive()
    with pytest.raises(TimeoutError):
        handle.result(0.02)
    assert not handle.done()
    router.answer(received)
    assert handle.result().model == "m"
    assert handle.done()


def test_a_follower_takes_the_lead(router, client):
    """When the thread that reads for all has its answer, another one reads on."""
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(client.infer, "m", x(value)) for value in range(4)]
        for received in [router.receive() for _ in futures]:
            router.answer(received)
            # One answer at a time, so that the lead is passed on with requests still open.
            assert wait_until(lambda: any(future.done() for future in futures))
        assert [future.result(WAIT_S)["x"][0, 0] for future in futures] == list(range(4))


def test_an_interrupted_thread_passes_the_lead_on(router, client):
    """Ctrl-C in the thread that reads for all ends its own call only; the others still get their answers."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ThreadPoolExecutor(2) as pool:
            main_thread = threading.get_ident()

            def follow():
                assert router.receive().message.id
                future = pool.submit(client.infer, "m", x(2.0))
                received = router.receive()
                assert wait_until(lambda: len(client._shared._lead.followers) == 1)
                signal.pthread_kill(main_thread, signal.SIGUSR1)
                assert wait_until(lambda: client._shared._lead.thread not in {None, main_thread})
                router.answer(received)
                return future.result(WAIT_S)["x"][0, 0]

            follower = pool.submit(follow)
            with pytest.raises(KeyboardInterrupt):
                client.infer("m", x(1.0))
            assert follower.result(WAIT_S) == 2.0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(client._shared._exchange) == 0


def test_close_ends_what_is_under_way(router, address):
    """Closing ends blocked calls and handles as unreachable; later calls are refused; closing again does nothing."""
    client = Client(address, timeout=WAIT_S)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(client.infer, "m", x()) for _ in range(3)]
        for _ in futures:
            router.receive()
        handle = client.submit("m", x())
        router.receive()
        client.close()
        for future in futures:
            assert isinstance(future.exception(WAIT_S), Unreachable)
    assert isinstance(handle.exception(), Unreachable)
    client.close()
    with pytest.raises(Usage, match="closed"):
        client.infer("m", x())


def test_close_ends_every_wait(router, client):
    """Closing ends the wait of every thread, even for a handle that no answer can come for."""
    handle: Handle[Answer] = Handle(client._shared, RequestId(bytes(16)))
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(handle.exception) for _ in range(3)]
        assert wait_until(lambda: len(client._shared._lead.followers) == 2)
        client.close()
        for future in futures:
            assert isinstance(future.result(WAIT_S), Unreachable)


def test_close_inside_a_callback(router, address):
    """A callback may close the client."""
    client = Client(address, timeout=WAIT_S)
    closed = threading.Event()
    handle = client.submit("m", x())
    handle.add_done_callback(lambda _: (client.close(), closed.set()))
    router.answer(router.receive())
    assert closed.wait(WAIT_S)


def test_close_releases_everything(router, address):
    """Clients that came and went, some with background threads, leave no thread and no descriptor behind."""

    def count() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    echo(router)
    with Client(address) as client:
        client.infer("m", x())
    before = count()
    for _ in range(5):
        with Client(address) as client:
            client.infer("m", x())
            client.submit("m", x()).result()
    # The router's side closes its ends when it notices.
    assert wait_until(lambda: count() <= before), (before, count())


def test_a_forked_process_is_told(client, monkeypatch):
    """Used in a process forked from its own, a client refuses instead of breaking the connection of both."""
    monkeypatch.setattr(forks, "depth", 1)
    with pytest.raises(Usage, match="fork"):
        client.infer("m", x())


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true within the patience of a test."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True
