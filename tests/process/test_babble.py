"""Noise between router and worker, in the name of either: the worker is replaced and nobody waits in vain."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.borrowed import borrow_worker_stream
from tests.support.daemon import script, tenant

ROW = np.full((1, 4), 3.0, np.float32)


@pytest.mark.parametrize(("speaker", "cause"), [("worker", "misbehaved"), ("router", "exited")])
def test_a_message_that_cannot_be_read_costs_no_request(make_daemon, speaker, cause):
    """Requests that ran or came meanwhile are answered, the later by the successor, and the router lives on."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=0.5))}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        running = client.submit("echo", {"x": ROW}, timeout=300)
        status = daemon.wait_status(lambda it: it["tenants"][0]["workers"][0]["in_flight"] > 0, "a running batch")
        worker = status["tenants"][0]["workers"][0]
        with borrow_worker_stream(worker["pid"] if speaker == "worker" else status["router"]["pid"]) as stream:
            stream.send(b"\xff" * 64)
        later = client.submit("echo", {"x": ROW + 1}, timeout=300)
        np.testing.assert_array_equal(running.result(60)["x"], ROW)
        np.testing.assert_array_equal(later.result(60)["x"], ROW + 1)
    assert later.result().generation == worker["generation"] + 1
    daemon.wait_event("worker.exited", tenant="a", generation=worker["generation"], cause=cause)
    assert daemon.status()["router"]["pid"] == status["router"]["pid"]
