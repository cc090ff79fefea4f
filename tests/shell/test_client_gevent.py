"""The blocking client in a process that gevent has patched: threads are greenlets, and nothing may block them all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.client_router import StandInRouter

LONGEST_S = 60.0

SCRIPT = """
from gevent import monkey
monkey.patch_all()

import sys, threading
import gevent
import numpy as np
import trtd
from trtd.errors import Unreachable

x = np.arange(2**18, dtype=np.float32)
right = []

def call(client, number):
    for _ in range(10):
        right.append(client.infer("m", {"x": x + number})["x"][0] == number)

with trtd.Client(sys.argv[1]) as client:
    callers = [threading.Thread(target=call, args=(client, number)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(right) == 80 and all(right)
    answers = [client.infer("m", {"x": x}) for _ in range(5)]
    assert answers[-1]._region is not None, "outputs do not come in shared memory"
    assert len(list(client.infer_many("m", ({"x": x} for _ in range(50))))) == 50
    called = []
    handle = client.submit("m", {"x": x})
    handle.add_done_callback(called.append)
    handle.result()
    while not called:
        gevent.sleep(0.001)

with trtd.Client(sys.argv[1] + ".none") as client:
    ticks = 0

    def tick():
        global ticks
        while True:
            gevent.sleep(0.001)
            ticks += 1

    ticking = gevent.spawn(tick)
    try:
        client.infer("m", {"x": x}, timeout=0.2)
    except Unreachable:
        assert ticks > 5, "a greenlet that waits has kept the others from running"
    try:
        with gevent.Timeout(0.05):
            client.infer("m", {"x": x}, timeout=30)
    except gevent.Timeout:
        ticking.kill()
        print("all is well")
"""


@pytest.mark.parametrize("takes_arenas", [True, False])
def test_greenlets_share_a_client(tmp_path, takes_arenas):
    """All answers come, through shared memory where it is had; deadlines and gevent's own timeouts are kept."""
    address = f"ipc://{tmp_path}/a.sock"
    script = SCRIPT if takes_arenas else SCRIPT.replace("is not None, ", "is None, ")
    with StandInRouter(address) as router:
        if takes_arenas:
            router.take_arenas(has_bundles=True)
        router.serve(router.answer)
        done = subprocess.run(
            [sys.executable, "-c", script, address],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    assert done.stdout == "all is well\n", done.stderr
