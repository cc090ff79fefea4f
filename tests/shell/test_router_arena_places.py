"""Requests that name places in arenas, at a real router: whose they may be, and where they may lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.arenas import PAGE_BYTES, ask_places, closing
from trtd.core.dispatch import TenantLimits
from trtd.core.faults import Fault, FaultKind
from trtd.errors import ErrorCode
from trtd.wire import control
from trtd.wire.arenas import (
    ArenaRef,
    Welcome,
    decode_ref,
)
from trtd.wire.messages import ErrorAnswer, InferAnswer


def test_an_arena_carries_inputs_and_answers(bench):
    """A request that names places reaches the worker with its references as they are, and so does the answer back."""
    worker = bench.worker()
    offerer, client = bench.offerer(), bench.client()
    assert offerer.welcome() == Welcome(64 * 1024 * 1024, has_bundles=True)
    key, fd = offerer.open(4 * PAGE_BYTES)
    with closing(fd):
        place, area = ArenaRef(key, 64, 100), ArenaRef(key, PAGE_BYTES, 3 * PAGE_BYTES)
        request_id = ask_places(client, place, area=area)
        batch, requests = worker.receive()
        assert [decode_ref(frame) for frame in requests[0][1:]] == [place, area]
        worker.answer(batch, [requests[0][:2]])
        answer, frames = client.receive()
        assert isinstance(answer, InferAnswer)
        assert (answer.id, decode_ref(frames[0])) == (request_id, place)


def test_a_key_counts_for_its_owner_only(bench, tmp_path):
    """Another process, another tenant and a guess get the same words, and cannot withdraw what is not theirs."""
    bench.tenant("b")
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    script = """
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
import zmq
from tests.support.arenas import Offerer, ask_places
from tests.support.router import RouterClient
from trtd.wire.arenas import ArenaRef
directory, key = Path(sys.argv[1]), int(sys.argv[2])
for tenant in "ab":
    offerer = Offerer(directory / f"{tenant}.arenas")
    offerer.welcome()
    offerer.withdraw(key)
    offerer.offer()
context = zmq.Context()
client = RouterClient(context, f"ipc://{directory}/a.sock")
for guess in (key, key + 1):
    ask_places(client, ArenaRef(guess, 0, 8))
    answer = client.receive()[0]
    print(answer.code, answer.message)
context.destroy(linger=0)
"""
    with closing(fd):
        lines = subprocess.run(
            [sys.executable, "-c", script, str(bench.directory), str(key)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout.splitlines()
        assert lines[0].startswith(ErrorCode.ARENA_UNKNOWN)
        assert lines[0] == lines[1]
        stranger = bench.client("b")
        ask_places(stranger, ArenaRef(key, 0, 8))
        answer, _ = stranger.receive()
        assert isinstance(answer, ErrorAnswer)
        assert f"{answer.code} {answer.message}" == lines[0]
        worker = bench.worker()
        ask_places(client, ArenaRef(key, 0, 8))
        worker.serve(1)
        assert isinstance(client.receive()[0], InferAnswer)


HIDDEN_ROUTER = """
import sys
from pathlib import Path
import zmq
from tests.shell.conftest import RouterBench
bench = RouterBench(Path(sys.argv[1]), zmq.Context())
bench.start()
bench.tenant()
worker = bench.worker()
print("ready", flush=True)
worker.serve(2)
sys.stdin.read()
bench.close()
"""


def can_hide() -> bool:
    """Whether this host lets us run a process in a pid namespace of its own."""
    unshare = shutil.which("unshare")
    return (
        unshare is not None
        and not subprocess.run([unshare, "--pid", "--fork", "true"], capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not can_hide(), reason="no pid namespace can be made here")
def test_a_client_that_the_kernel_has_no_number_for_shares_memory(bench):
    """A router in a pid namespace of its own, as in a pod, serves clients outside from their arenas, by their keys."""
    directory = bench.directory / "pod"
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", HIDDEN_ROUTER, str(directory)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as pod:
        assert pod.stdout is not None
        assert pod.stdout.readline() == "ready\n"
        offerers = [bench.offerer(directory=directory) for _ in range(2)]
        client = bench.connect(f"ipc://{directory}/a.sock")
        for offerer in offerers:
            offerer.welcome()
            key, fd = offerer.open()
            with closing(fd):
                ask_places(client, ArenaRef(key, 0, 8))
                assert isinstance(client.receive()[0], InferAnswer)
        ask_places(client, ArenaRef(key + 1, 0, 8))
        answer, _ = client.receive()
        assert isinstance(answer, ErrorAnswer)
        assert answer.code == ErrorCode.ARENA_UNKNOWN
        pod.communicate("")
    assert pod.returncode == 0


@pytest.mark.parametrize(
    ("offset", "size", "code"),
    [
        (0, PAGE_BYTES, None),
        (PAGE_BYTES - 64, 64, None),
        (PAGE_BYTES, 0, None),
        (PAGE_BYTES - 64, 65, ErrorCode.MALFORMED),
        (PAGE_BYTES, 1, ErrorCode.MALFORMED),
        (0, PAGE_BYTES + 1, ErrorCode.MALFORMED),
        (1, 8, ErrorCode.MALFORMED),
        (63, 8, ErrorCode.MALFORMED),
        (2**64 - 64, 8, ErrorCode.MALFORMED),
        (2**64 - 64, 128, ErrorCode.MALFORMED),
        (2**63, 8, ErrorCode.MALFORMED),
    ],
)
def test_places_lie_inside_their_arena(bench, offset, size, code):
    """A place or area at the very edge is served; one byte beyond, or one that is not aligned, is a typed error."""
    worker = bench.worker()
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        for refs, area in (((ArenaRef(key, offset, size),), None), ((), ArenaRef(key, offset, size))):
            ask_places(client, *refs, area=area)
            if code is None:
                batch, requests = worker.receive()
                worker.answer(batch, [request[: 1 + len(refs)] for request in requests])
            answer, _ = client.receive()
            assert getattr(answer, "code", None) == code


def test_a_place_is_as_long_as_its_tensor(bench):
    """A place of another size than the tensor needs is a typed error."""
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        for size in (7, 9):
            ask_places(client, ArenaRef(key, 0, 8), sizes=[size])
            answer, _ = client.receive()
            assert isinstance(answer, ErrorAnswer)
            assert answer.code == ErrorCode.MALFORMED
            assert f"has 8 bytes, it needs {size}" in answer.message


def test_bytes_in_arenas_count_as_payload(bench):
    """The bounds on one request and on the queue are the same for tensors in arenas."""
    bench.tenant("b", max_request_bytes=16 * PAGE_BYTES, limits=TenantLimits(max_bytes=24 * PAGE_BYTES))
    offerer, client = bench.offerer("b"), bench.client("b")
    offerer.welcome()
    key, fd = offerer.open(32 * PAGE_BYTES)
    with closing(fd):
        ask_places(client, ArenaRef(key, 0, 17 * PAGE_BYTES))
        answer, _ = client.receive()
        assert getattr(answer, "code", None) == ErrorCode.TOO_LARGE
        ask_places(client, ArenaRef(key, 0, 15 * PAGE_BYTES), area=ArenaRef(key, 0, 32 * PAGE_BYTES))
        ask_places(client, ArenaRef(key, 0, 15 * PAGE_BYTES))
        answer, _ = client.receive()
        assert getattr(answer, "code", None) == ErrorCode.OVERLOADED


def test_bytes_changed_under_a_worker_frame_nobody(bench):
    """What was there when the worker got it is convicted, and not what its client has put there since."""
    bench.tenant(limits=TenantLimits(max_attempts=5))
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        os.pwrite(fd, b"poison--", 64)
        ask_places(client, ArenaRef(key, 64, 8))
        for generation in (1, 2):
            worker = bench.worker(generation=generation)
            worker.receive()
            if generation == 2:
                os.pwrite(fd, b"harmless", 64)
            bench.router.tell(control.WorkerRevoked(*worker.id, fault=Fault(FaultKind.PROGRESS_STALLED, "it hung")))
        assert getattr(client.receive()[0], "code", None) == ErrorCode.POISONOUS
        blamed = bench.router.expect(control.ClientBlamed)
        assert (blamed.owner, blamed.deaths, blamed.barred_s) == (f"uid:{os.geteuid()}", ((0, 1), (0, 2)), 0.0)
        ask_places(client, ArenaRef(key, 64, 8))
        assert bench.worker(generation=3).receive()
        os.pwrite(fd, b"poison--", 128)
        ask_places(client, ArenaRef(key, 128, 8))
        assert getattr(client.receive()[0], "code", None) == ErrorCode.POISONOUS


def test_poison_is_recognised_in_an_arena(bench):
    """An input that ended workers is refused wherever its bytes are, and another one at the same place is not."""
    bench.tenant(limits=TenantLimits(max_attempts=5))
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        os.pwrite(fd, b"poison--", 64)
        request_id = ask_places(client, ArenaRef(key, 64, 8))
        for generation in (1, 2):
            worker = bench.worker(generation=generation)
            worker.receive()
            bench.router.tell(control.WorkerRevoked(*worker.id, fault=Fault(FaultKind.CRASHED, "it died")))
        answer, _ = client.receive()
        assert (answer.id, getattr(answer, "code", None)) == (request_id, ErrorCode.POISONOUS)
        os.pwrite(fd, b"poison--", 128)
        ask_places(client, ArenaRef(key, 128, 8))
        assert getattr(client.receive()[0], "code", None) == ErrorCode.POISONOUS
        os.pwrite(fd, b"harmless", 128)
        ask_places(client, ArenaRef(key, 128, 8))
        bench.worker(generation=3).serve(1)
        assert isinstance(client.receive()[0], InferAnswer)
