"""Large tensors through the whole daemon: in shared memory, whatever dies on the way, and nothing of it left behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import trtd
from tests.chaos.holdings import OWN_PAGE
from tests.support.daemon import Daemon, script, tenant, wait_until

SHAPE = (1, 256 * 1024)
"""One megabyte."""
WIDE = {"inputs": [{"name": "x", "dtype": "float32", "shape": [None, SHAPE[1]]}]}


def large(value: float) -> np.ndarray[Any, Any]:
    return np.full(SHAPE, value, np.float32)


def check(client: trtd.Client, value: float, timeout: float = 20.0) -> None:
    """One request with its right answer, from an array that lives in shared memory where there is some."""
    x = client.empty(SHAPE)
    x[...] = value
    y = client.infer("echo", {"x": x}, timeout=timeout)["x"]
    assert np.array_equal(y, large(value))


def arenas(daemon: Daemon) -> tuple[int, int]:
    """Bytes and number of the tenant's arenas, as the status shows them."""
    shown = daemon.tenant("a")
    return shown["arena_bytes"], shown["arena_count"]


def mapped(pid: int) -> int:
    """How many memfds of others a process has mapped or open."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    count = maps.count("/memfd:") - maps.count(OWN_PAGE)
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # A descriptor may be closed between the listing and the look.
        with contextlib.suppress(FileNotFoundError):
            name = str(link.readlink())
            count += name.startswith("/memfd:") and not name.startswith(OWN_PAGE)
    return count


def wait_for_arenas(daemon: Daemon, client: trtd.Client) -> None:
    """Ask until the router has taken an arena; a request goes in frames until then."""

    def is_shown() -> bool:
        check(client, 1.0)
        return arenas(daemon)[1] > 0

    wait_until(is_shown, "an arena")


def test_large_tensors_travel_in_shared_memory(make_daemon):
    """They arrive right, the status shows arenas within the bound, and nothing is left when the client has closed."""
    daemon = make_daemon({"a": tenant(script(**WIDE))}).start()
    daemon.wait_ready()
    router, worker = daemon.status()["router"]["pid"], daemon.worker("a")["pid"]
    before = mapped(router), mapped(worker)
    with daemon.client() as client:
        wait_for_arenas(daemon, client)
        for value in range(20):
            check(client, float(value))
        held_bytes, count = arenas(daemon)
        assert 0 < held_bytes <= daemon.tenant("a")["arena_limit_bytes"]
        assert count > 0
        assert mapped(worker) > before[1]
    wait_until(lambda: (mapped(router), mapped(worker)) == before, "the end of all arenas")
    wait_until(lambda: arenas(daemon) == (0, 0), "the status without arenas")


def test_a_successor_of_a_worker_gets_the_arenas(make_daemon):
    """Requests that name shared memory are answered right while their workers are killed."""
    daemon = make_daemon({"a": tenant(script(**WIDE))}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        wait_for_arenas(daemon, client)
        for value in range(3):
            daemon.kill_worker("a")
            handles = [client.submit("echo", {"x": large(value + at / 8)}, timeout=20.0) for at in range(8)]
            for at, handle in enumerate(handles):
                assert np.array_equal(handle.result()["x"], large(value + at / 8))
            daemon.wait_ready()


def test_a_new_router_gets_the_arenas(make_daemon):
    """While routers are killed every request is answered right, in frames if need be, and arenas come back."""
    daemon = make_daemon({"a": tenant(script(**WIDE))}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        wait_for_arenas(daemon, client)
        for value in range(3):
            daemon.kill_router()
            check(client, float(value))
            daemon.wait_ready()
            wait_for_arenas(daemon, client)


CLIENT = """
import sys
import numpy as np
import trtd
with trtd.Client(sys.argv[1]) as client:
    fast = np.zeros((1, 262144), np.float32)
    for _ in range(100):
        client.infer("echo", {"x": fast}, timeout=20.0)
    slow = np.ones((1, 262144), np.float32)
    handles = [client.submit("echo", {"x": slow}, timeout=20.0) for _ in range(3)]
    print("sent", flush=True)
    handles[-1].result()
"""


def test_a_client_that_is_killed_leaves_nothing(make_daemon):
    """What its requests still need lives until their workers are done with it, and then all is gone."""
    daemon = make_daemon({"a": tenant(script("sleep", when=1.0, seconds=0.5, **WIDE))}).start()
    daemon.wait_ready()
    router, worker = daemon.status()["router"]["pid"], daemon.worker("a")["pid"]
    before = mapped(router), mapped(worker)
    with subprocess.Popen([sys.executable, "-c", CLIENT, daemon.address()], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "sent\n"
        wait_until(lambda: arenas(daemon)[1] > 0, "an arena")
        child.kill()
    wait_until(lambda: (mapped(router), mapped(worker)) == before, "the end of all arenas")
    wait_until(lambda: arenas(daemon) == (0, 0), "the status without arenas")
    with daemon.client() as client:
        check(client, 2.0)
    assert (daemon.worker("a")["pid"], daemon.status()["router"]["pid"]) == (worker, router)
