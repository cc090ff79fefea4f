"""A request that ends routers is found, and refused like one that ends workers; everybody else is answered."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from tests.support.daemon import script, tenant
from trtd.errors import Poisonous

ROW = np.full((1, 4), 1.0, np.float32)
DEADLY = 13.0
LEAST_DEATHS, MOST_DEATHS = 3, 6
"""The first router had no reason to write it down; of the others, two died with it alone in hand. What is told about
once a second may be of the router before, so that one dies which had nothing in hand yet."""


def test_a_request_that_ends_routers_is_refused_after_two_lone_deaths(make_daemon):
    """The router is killed each time that it has the request in hand; neighbours are all answered."""
    tables = {"a": tenant(script("sleep", when=DEADLY, seconds=4.0), replicas=2), "b": tenant()}
    daemon = make_daemon(tables).start()
    daemon.wait_ready()

    def at_work() -> tuple[int, bool]:
        """The pid of the router, and whether it has told that a worker has the request."""
        status = daemon.status()
        return status["router"]["pid"], status["tenants"][0]["leased"] > 0

    with daemon.client("a") as client, daemon.client("b") as neighbour:
        deadly = client.submit("echo", {"x": ROW * DEADLY}, timeout=120)
        killed: set[int] = set()
        while not deadly.done():
            pid, has_it = at_work()
            if has_it and pid not in killed:
                assert len(killed) < MOST_DEATHS
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            assert (neighbour.infer("echo", {"x": ROW}, timeout=60)["x"] == ROW).all()
        with pytest.raises(Poisonous, match="ended routers"):
            deadly.result(0)
        assert len(killed) >= LEAST_DEATHS
        with pytest.raises(Poisonous):
            client.infer("echo", {"x": ROW * DEADLY}, timeout=60)
        assert (client.infer("echo", {"x": ROW * 2})["x"] == ROW * 2).all()
