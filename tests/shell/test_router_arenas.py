"""Arenas at a real router: what is taken, what is refused, who may name what, and when an arena ends."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest

from tests.support.arenas import PAGE_BYTES, SEALS, Offerer, ask_places, closing, make_memfd
from trtd.core.arenas import MAX_ARENAS_PER_CONNECTION
from trtd.core.dispatch import TenantLimits
from trtd.errors import ErrorCode
from trtd.router.arenas import MAX_CONNECTIONS, MAX_STRANGE
from trtd.router.memfds import F_SEAL_FUTURE_WRITE
from trtd.wire import control
from trtd.wire.arenas import (
    MAX_PACKET_BYTES,
    ArenaAccepted,
    ArenaOffered,
    ArenaRef,
    ArenaRefused,
    ArenaWithdrawn,
    Welcome,
    decode_ref,
    encode_packet,
)
from trtd.wire.messages import ErrorAnswer, InferAnswer

QUOTA = 64 * 1024 * 1024


def arenas_held(bench) -> int:
    """How many memfds of clients the router has open."""
    return sum(name.startswith("/memfd:arena") for name in bench.router.fds())


def refusal(bench, *fds: int, size_bytes: int = PAGE_BYTES) -> tuple[str, str]:
    """Code and words with which the router refuses an offer; nothing of it stays open there."""
    bench.offerer().welcome()
    before = Counter(bench.router.fds())
    offerer = Offerer(bench.directory / "a.arenas")
    offerer.welcome()
    answer = offerer.offer(*fds, size_bytes=size_bytes)
    assert isinstance(answer, ArenaRefused), answer
    # The connection goes on.
    key, fd = offerer.open()
    os.close(fd)
    offerer.withdraw(key)
    offerer.close()
    bench.router.wait_until(lambda: not Counter(bench.router.fds()) - before)
    return answer.code, answer.message


def test_an_arena_carries_inputs_and_answers(bench):
    """A request that names places reaches the worker with its references as they are, and so does the answer back."""
    worker = bench.worker()
    offerer, client = bench.offerer(), bench.client()
    assert offerer.welcome() == Welcome(QUOTA, has_bundles=False)
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


def test_the_bytes_are_counted(bench):
    """The tenant's numbers show arenas until they are withdrawn, and a request counts with the bytes that it names."""
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    (key, first), (other, second) = offerer.open(2 * PAGE_BYTES), offerer.open(PAGE_BYTES)
    with closing(first, second):
        bench.router.stats("a", lambda it: (it.arena_bytes, it.arena_count) == (3 * PAGE_BYTES, 2))
        ask_places(client, ArenaRef(key, 0, 1000))
        held = bench.router.stats("a", lambda it: it.queued == 1).held_bytes
        assert 1000 < held < 1200
        offerer.withdraw(other)
        bench.router.stats("a", lambda it: (it.arena_bytes, it.arena_count) == (2 * PAGE_BYTES, 1))


def test_a_withdrawn_arena_lives_as_long_as_its_last_request(bench):
    """Nothing new may name it, what named it before is served, and then its descriptor is closed."""
    worker = bench.worker()
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        asked = ask_places(client, ArenaRef(key, 0, 8))
        batch, requests = worker.receive()
        bench.router.stats("a", lambda it: (it.arena_bytes, it.arena_count) == (PAGE_BYTES, 1))
        offerer.withdraw(key)
        offerer.offer()
        ask_places(client, ArenaRef(key, 0, 8))
        refused, _ = client.receive()
        assert isinstance(refused, ErrorAnswer)
        assert refused.code == ErrorCode.ARENA_UNKNOWN
        assert arenas_held(bench) == 1
        worker.answer(batch, requests)
        answer, _ = client.receive()
        assert answer.id == asked
        bench.router.wait_until(lambda: arenas_held(bench) == 0)
        bench.router.stats("a", lambda it: (it.arena_bytes, it.arena_count) == (0, 0))


def test_a_client_that_dies_leaves_nothing(bench):
    """With the connection go its arenas, at once or with the requests that workers hold."""
    worker, client = bench.worker(), bench.client()
    client.ask()
    worker.serve(1)
    client.receive()
    bench.offerer().welcome()
    before = Counter(bench.router.fds())
    offerer = Offerer(bench.directory / "a.arenas")
    offerer.welcome()
    keys, fds = zip(*(offerer.open() for _ in range(5)), strict=True)
    with closing(*fds):
        ask_places(client, ArenaRef(keys[0], 0, 8))
        batch, requests = worker.receive()
        offerer.close()
        bench.router.wait_until(lambda: arenas_held(bench) == 1)
        worker.answer(batch, requests)
        bench.router.wait_until(lambda: not Counter(bench.router.fds()) - before)


def test_a_removed_tenant_leaves_nothing(bench):
    """Socket, connections and arenas end with the tenant, and it may come back."""
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        ask_places(client, ArenaRef(key, 0, 8))
        bench.router.stats("a", lambda it: it.queued == 1)
        bench.router.tell(control.TenantForgotten("a"))
        assert offerer.receive() is None
        bench.router.wait_until(lambda: arenas_held(bench) == 0)
        assert not (bench.directory / "a.arenas").exists()
        bench.tenant()
        again = bench.offerer()
        again.welcome()
        os.close(again.open()[1])


def memfd_kinds() -> dict[str, tuple[int, str]]:
    return {
        "not sealed": (0, "not sealed"),
        "may grow": (fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL, "not sealed"),
        "may shrink": (fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL, "not sealed"),
        "may be sealed": (fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK, "not sealed"),
        "read only": (SEALS | fcntl.F_SEAL_WRITE, "against writing"),
        "read only later": (SEALS | F_SEAL_FUTURE_WRITE, "against writing"),
    }


@pytest.mark.parametrize(("seals", "words"), memfd_kinds().values(), ids=memfd_kinds().keys())
def test_a_memfd_with_wrong_seals_is_refused(bench, seals, words):
    """Seals that let the size change, or that forbid an answer, are a typed refusal."""
    with closing(make_memfd(seals=seals)) as (fd,):
        code, message = refusal(bench, fd)
    assert code == ErrorCode.MALFORMED
    assert words in message


@pytest.mark.parametrize(
    ("actual", "said", "words"),
    [
        (PAGE_BYTES, 2 * PAGE_BYTES, "the packet says"),
        (2 * PAGE_BYTES, PAGE_BYTES, "the packet says"),
        (0, 0, "multiple of the page size"),
        (PAGE_BYTES + 1, PAGE_BYTES + 1, "multiple of the page size"),
        (PAGE_BYTES - 1, PAGE_BYTES - 1, "multiple of the page size"),
    ],
)
def test_a_memfd_of_another_size_is_refused(bench, actual, said, words):
    """The size is what the client says, and whole pages."""
    with closing(make_memfd(actual)) as (fd,):
        code, message = refusal(bench, fd, size_bytes=said)
    assert code == ErrorCode.MALFORMED
    assert words in message


def foreign_fd(kind: str, directory: Path) -> int:
    """A descriptor that is no memfd, or one that cannot be written through."""
    if kind == "pipe":
        reader, writer = os.pipe()
        os.close(writer)
        return reader
    if kind == "socket":
        return socket.socket(socket.AF_UNIX).detach()
    if kind == "file":
        path = directory / "file"
        path.write_bytes(bytes(PAGE_BYTES))
        return os.open(path, os.O_RDWR)
    if kind == "read-only memfd":
        with closing(make_memfd()) as (fd,):
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    if kind == "path":
        return os.open(directory, os.O_PATH)
    return os.open({"device": "/dev/zero", "directory": "/", "tmpfs": "/dev/shm"}[kind], os.O_RDONLY)


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "read-only memfd", "path", "device", "directory", "tmpfs"])
def test_what_is_no_writable_memfd_is_refused(bench, kind):
    """Any other descriptor is a typed refusal, and closed."""
    with closing(foreign_fd(kind, bench.directory)) as (fd,):
        code, message = refusal(bench, fd)
    assert code == ErrorCode.MALFORMED
    assert "memfd" in message or "reading and writing" in message


def test_huge_pages_are_refused(bench):
    """A memfd of huge pages is not taken; the runtime may not be able to pin it, and its pages are scarce."""
    try:
        fd = make_memfd(2 * 1024 * 1024, flags=os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"this host has no huge pages: {error}")
    with closing(fd):
        code, message = refusal(bench, fd, size_bytes=2 * 1024 * 1024)
    assert code == ErrorCode.MALFORMED
    assert "ordinary pages" in message


@pytest.mark.parametrize("count", [0, 2, 3, 100])
def test_an_offer_has_one_descriptor(bench, count):
    """None, or more than one, is a typed refusal, and none of them stays open."""
    with closing(make_memfd()) as (fd,):
        code, message = refusal(bench, *([fd] * count))
    assert code == ErrorCode.MALFORMED
    assert "descriptor" in message


def test_the_bytes_of_a_tenant_are_bounded(bench):
    """One arena beyond the limit is too large for ever; all of them together are refused until some are withdrawn."""
    bench.tenant("small", max_arena_bytes=4 * PAGE_BYTES)
    one, other = bench.offerer("small"), bench.offerer("small")
    assert one.welcome().max_arena_bytes == other.welcome().max_arena_bytes == 4 * PAGE_BYTES
    with closing(make_memfd(5 * PAGE_BYTES), make_memfd(2 * PAGE_BYTES)) as (large, half):
        refused = one.offer(large, size_bytes=5 * PAGE_BYTES)
        assert isinstance(refused, ArenaRefused)
        assert refused.code == ErrorCode.TOO_LARGE
        key, fd = one.open(3 * PAGE_BYTES)
        os.close(fd)
        refused = other.offer(half, size_bytes=2 * PAGE_BYTES)
        assert isinstance(refused, ArenaRefused)
        assert refused.code == ErrorCode.OVERLOADED
        bench.router.stats("small", lambda it: it.arena_count == 1)
        one.withdraw(key)
        bench.router.stats("small", lambda it: it.arena_count == 0)
        assert isinstance(other.offer(half, size_bytes=2 * PAGE_BYTES), ArenaAccepted)


def test_a_tenant_may_take_none(bench):
    """Where the limit is 0 the client is told so, and an offer is refused."""
    bench.tenant("none", max_arena_bytes=0)
    offerer = bench.offerer("none")
    assert offerer.welcome().max_arena_bytes == 0
    with closing(make_memfd()) as (fd,):
        answer = offerer.offer(fd)
    assert isinstance(answer, ArenaRefused)
    assert answer.code == ErrorCode.TOO_LARGE
    assert "no shared memory" in answer.message


def test_ten_thousand_offers_are_refused_or_taken_within_bounds(bench):
    """A connection has a bounded number of arenas however many it offers, and the router serves others meanwhile."""
    worker = bench.worker()
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    accepted = refused = 0
    with closing(make_memfd()) as (fd,):
        for _ in range(100):
            for number in range(100):
                offerer.send(encode_packet(ArenaOffered(number, PAGE_BYTES)), fd)
            for _ in range(100):
                answer = offerer.receive()
                accepted += isinstance(answer, ArenaAccepted)
                refused += isinstance(answer, ArenaRefused)
    assert (accepted, refused) == (MAX_ARENAS_PER_CONNECTION, 10_000 - MAX_ARENAS_PER_CONNECTION)
    client.ask()
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)
    bench.router.wait_until(lambda: arenas_held(bench) == MAX_ARENAS_PER_CONNECTION)


def test_a_client_that_does_not_read_is_hung_up_on(bench):
    """Answers to offers are not kept for whoever leaves them lying."""
    offerer = bench.offerer()
    offerer.socket.settimeout(None)
    with closing(make_memfd()) as (fd,), suppress(BrokenPipeError, ConnectionResetError):
        while True:
            offerer.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), fd)
    bench.router.wait_until(lambda: arenas_held(bench) == 0)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x00" * MAX_PACKET_BYTES,
        b"\x00" * (MAX_PACKET_BYTES + 1),
        b"",
        msgpack.packb([1, "offered", -1, 4096]),
        msgpack.packb([1, "offered", 1]),
        msgpack.packb([9, "offered", 1, 4096]),
        encode_packet(Welcome(1, has_bundles=True)),
        encode_packet(ArenaAccepted(1, 1)),
        encode_packet(ArenaWithdrawn(1)),
    ],
)
def test_garbage_ends_the_connection(bench, data):
    """A packet that no client sends, here with a descriptor beside it, ends its connection and leaves nothing open."""
    bench.offerer().welcome()
    before = Counter(bench.router.fds())
    offerer = Offerer(bench.directory / "a.arenas")
    offerer.welcome()
    with closing(make_memfd()) as (fd,):
        offerer.send(data, fd)
        assert offerer.receive() is None
    offerer.close()
    bench.router.wait_until(lambda: not Counter(bench.router.fds()) - before)


def test_half_open_and_silent_connections_cost_nothing_but_themselves(bench):
    """Silent ones are left alone, one that has shut a direction is ended, and more than the bound are not taken."""
    bench.offerer().welcome()
    before = bench.router.socket_count()
    silent = [bench.offerer() for _ in range(MAX_CONNECTIONS - 1)]
    for offerer in silent:
        offerer.welcome()
    assert bench.offerer().receive() is None
    silent[0].socket.shutdown(socket.SHUT_WR)
    assert silent[0].receive() is None
    late = bench.offerer()
    late.welcome()
    os.close(late.open()[1])
    for offerer in [*silent, late]:
        offerer.close()
    bench.router.wait_until(lambda: bench.router.socket_count() == before)


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


def test_a_list_that_becomes_shorter_ends_connections(bench):
    """Whoever may not use the tenant any more loses its connection and its arenas; the others keep theirs."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    nobody = 65_534
    bench.directory.chmod(0o755)
    for parent in bench.directory.parents[:3]:
        if parent.name.startswith("pytest"):
            parent.chmod(0o755)
    bench.tenant(allow_uids=(nobody,))
    bench.offerer().welcome()
    script = """
import os, sys
from pathlib import Path
from tests.support.arenas import Offerer
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
offerer = Offerer(Path(sys.argv[1]))
offerer.welcome()
offerer.open()
print("open", flush=True)
sys.stdin.readline()
print(offerer.receive(), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(bench.directory / "a.arenas"), str(nobody)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        own = bench.offerer()
        own.welcome()
        os.close(own.open()[1])
        bench.tenant(allow_uids=())
        bench.router.wait_until(lambda: arenas_held(bench) == 1)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "None\n"
    os.close(own.open()[1])


def test_switching_arenas_off_ends_connections(bench):
    """A new limit of 0 ends what is there, and clients are told when they come back."""
    offerer = bench.offerer()
    offerer.welcome()
    os.close(offerer.open()[1])
    bench.tenant(max_arena_bytes=0)
    assert offerer.receive() is None
    assert bench.offerer().welcome().max_arena_bytes == 0
    bench.router.wait_until(lambda: arenas_held(bench) == 0)


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
            bench.router.tell(control.WorkerRevoked(*worker.id, cause="crash", message="it died"))
        answer, _ = client.receive()
        assert (answer.id, getattr(answer, "code", None)) == (request_id, ErrorCode.POISONOUS)
        os.pwrite(fd, b"poison--", 128)
        ask_places(client, ArenaRef(key, 128, 8))
        assert getattr(client.receive()[0], "code", None) == ErrorCode.POISONOUS
        os.pwrite(fd, b"harmless", 128)
        ask_places(client, ArenaRef(key, 128, 8))
        bench.worker(generation=3).serve(1)
        assert isinstance(client.receive()[0], InferAnswer)


def test_strange_descriptors_do_not_pile_up(bench):
    """However many descriptors of no memory a client sends, and whether it is hung up on, none of them stays open."""
    bench.offerer().welcome()
    before = Counter(bench.router.fds())
    with closing(foreign_fd("pipe", bench.directory)) as (fd,):
        for _ in range(10):
            offerer = Offerer(bench.directory / "a.arenas")
            with suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(4 * MAX_STRANGE):
                    offerer.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), fd)
            offerer.close()
    bench.router.wait_until(lambda: not Counter(bench.router.fds()) - before)
