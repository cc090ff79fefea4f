"""What a router takes as an arena and what it refuses, and what a hostile client can do at that socket: nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest

from tests.support.arenas import PAGE_BYTES, SEALS, Offerer, closing, make_memfd
from trtd.core.arenas import MAX_ARENAS_PER_CONNECTION
from trtd.errors import ErrorCode
from trtd.router.arenas import MAX_CONNECTIONS, MAX_STRANGE
from trtd.router.memfds import F_SEAL_FUTURE_WRITE
from trtd.wire.arenas import (
    MAX_PACKET_BYTES,
    ArenaAccepted,
    ArenaOffered,
    ArenaRefused,
    ArenaWithdrawn,
    Welcome,
    encode_packet,
)
from trtd.wire.messages import InferAnswer


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


def test_what_was_withdrawn_makes_room_at_once(bench):
    """An offer right behind another client's withdrawal, in the same turn of the router, finds the room."""
    bench.tenant("small", max_arena_bytes=2 * PAGE_BYTES)
    one, other = bench.offerer("small"), bench.offerer("small")
    assert one.welcome() == other.welcome()
    key, fd = one.open(2 * PAGE_BYTES)
    os.close(fd)
    with closing(make_memfd(2 * PAGE_BYTES)) as (fd,):
        bench.router.process.send_signal(signal.SIGSTOP)
        one.withdraw(key)
        other.send(encode_packet(ArenaOffered(1, 2 * PAGE_BYTES)), fd)
        bench.router.process.send_signal(signal.SIGCONT)
        assert isinstance(other.receive(), ArenaAccepted)


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
    bench.router.wait_until(lambda: bench.arenas_held() == MAX_ARENAS_PER_CONNECTION)


def test_a_client_that_does_not_read_is_hung_up_on(bench):
    """Answers to offers are not kept for whoever leaves them lying."""
    offerer = bench.offerer()
    offerer.socket.settimeout(None)
    with closing(make_memfd()) as (fd,), suppress(BrokenPipeError, ConnectionResetError):
        while True:
            offerer.send(encode_packet(ArenaOffered(1, PAGE_BYTES)), fd)
    bench.router.wait_until(lambda: bench.arenas_held() == 0)


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
    # How many one user may have follows from the descriptors of the host.
    silent: list[Offerer] = []
    while (offerer := bench.offerer()).receive() is not None:
        silent.append(offerer)
        assert len(silent) < MAX_CONNECTIONS
    assert silent
    silent[0].socket.shutdown(socket.SHUT_WR)
    assert silent[0].receive() is None
    late = bench.offerer()
    late.welcome()
    os.close(late.open()[1])
    for offerer in [*silent, late]:
        offerer.close()
    bench.router.wait_until(lambda: bench.router.socket_count() == before)


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
