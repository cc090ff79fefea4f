"""When an arena ends at a real router: withdrawn, with its client, with its tenant, with the right to use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.support.arenas import PAGE_BYTES, Offerer, ask_places, closing
from tests.support.router import make_endpoint
from tests.support.users import NOBODY, only_root
from trtd.core.faults import Fault, FaultKind
from trtd.errors import ErrorCode
from trtd.wire import control
from trtd.wire.arenas import ArenaRef, decode_ref
from trtd.wire.messages import ErrorAnswer


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
        assert bench.arenas_held() == 1
        worker.answer(batch, requests)
        answer, _ = client.receive()
        assert answer.id == asked
        bench.router.wait_until(lambda: bench.arenas_held() == 0)
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
        bench.router.wait_until(lambda: bench.arenas_held() == 1)
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
        bench.router.wait_until(lambda: bench.arenas_held() == 0)
        assert not (bench.directory / "a.arenas").exists()
        bench.tenant()
        again = bench.offerer()
        again.welcome()
        os.close(again.open()[1])


@only_root
def test_a_list_that_becomes_shorter_ends_connections(bench, public_directory):
    """Whoever may not use the tenant any more loses its connection and its arenas; the others keep theirs."""
    path = public_directory / "shared.arenas"
    bench.router.open_tenant(make_endpoint(public_directory, "shared", allow_uids=(NOBODY,)))
    bench.router.wait_until(path.exists)
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
        [sys.executable, "-c", script, str(path), str(NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        own = Offerer(path)
        own.welcome()
        os.close(own.open()[1])
        bench.router.tell(control.TenantConfigured(make_endpoint(public_directory, "shared", allow_uids=())))
        bench.router.wait_until(lambda: bench.arenas_held() == 1)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "None\n"
    os.close(own.open()[1])
    own.close()


def test_switching_arenas_off_ends_connections(bench):
    """A new limit of 0 ends what is there, and clients are told when they come back."""
    offerer = bench.offerer()
    offerer.welcome()
    os.close(offerer.open()[1])
    bench.tenant(max_arena_bytes=0)
    assert offerer.receive() is None
    assert bench.offerer().welcome().max_arena_bytes == 0
    bench.router.wait_until(lambda: bench.arenas_held() == 0)


def test_only_the_first_worker_gets_the_area(bench):
    """A request that is given to another worker travels without it: the first one may not be as dead as it seems."""
    first = bench.worker()
    offerer, client = bench.offerer(), bench.client()
    offerer.welcome()
    key, fd = offerer.open(4 * PAGE_BYTES)
    with closing(fd):
        place, area = ArenaRef(key, 64, 100), ArenaRef(key, PAGE_BYTES, PAGE_BYTES)
        ask_places(client, place, area=area)
        _, [request] = first.receive()
        assert decode_ref(request[-1]) == area
        bench.router.tell(control.WorkerRevoked(*first.id, fault=Fault(FaultKind.PROGRESS_STALLED, "no progress")))
        second = bench.worker(generation=2)
        _, [request] = second.receive()
        assert [decode_ref(frame) for frame in request[1:]] == [place, area._replace(size_bytes=0)]
