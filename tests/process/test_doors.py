"""The daemon's sockets: who is kept out and told so, who is let in all the same, and that they come back."""

from __future__ import annotations

import shutil

import numpy as np

from tests.support.daemon import wait_until
from tests.support.strangers import NOBODY, Strangers, needs_root
from trtd.cli.main import main

X = np.ones((1, 4), np.float32)


@needs_root
def test_strangers_lock_no_operator_out(daemon):
    """While a user without a role holds 200 idle connections, each `status` and `health` of root is answered."""
    with Strangers(daemon.runtime_dir, "operator.sock", count=200) as strangers:
        assert strangers.outcomes() == {"connected": 200}
        for _ in range(24):
            assert daemon.call("status", patience_s=2.0)["tenants"]
        assert main(["health", "--runtime-dir", str(daemon.runtime_dir)]) == 0
    refused = daemon.wait_event("operator.connection_refused")
    assert refused["uid"] == NOBODY
    assert "too many connections" in refused["cause"]


def test_sockets_that_were_deleted_come_back(make_daemon):
    """Whether each path or the whole directory was deleted: noticed and logged, and clients and operators come in."""
    daemon = make_daemon().start()
    daemon.wait_ready()
    directory = daemon.runtime_dir
    paths = [directory / name for name in ("a.sock", "a.arenas", "operator.sock", "daemon.lock", "router/workers.sock")]
    with daemon.client() as client:
        client.infer("echo", {"x": X}, timeout=10)
        for destroy in (
            lambda: [path.unlink() for path in paths],
            lambda: shutil.rmtree(directory),
        ):
            destroy()
            wait_until(lambda: all(path.exists() for path in paths), "all sockets", 10.0)
            with daemon.client() as newcomer:
                newcomer.infer("echo", {"x": X}, timeout=10)
            # Who was there already did not notice.
            client.infer("echo", {"x": X}, timeout=10)
            daemon.call("restart", tenant="a")
    assert daemon.status()["router"]["restarts"] == 0
    for event in (
        "endpoint.socket_lost",
        "arenas.socket_lost",
        "operator.socket_lost",
        "worker.socket_lost",
        "worker.socket_reopened",
    ):
        assert daemon.events(event), event


def test_what_is_not_ours_stays_where_it_is(make_daemon):
    """A file in the place of a deleted socket is named in the log and left alone; once it is gone all is well again."""
    daemon = make_daemon().start()
    daemon.wait_ready()
    path = daemon.runtime_dir / "a.sock"
    path.unlink()
    path.write_text("mine", encoding="utf-8")
    problem = daemon.wait_event("endpoint.open_failed")
    assert "is no socket; take it away" in problem["cause"]
    shown = daemon.wait_status(lambda status: not status["tenants"][0]["is_ready"], "word of the lost socket")
    assert "is no socket; take it away" in shown["tenants"][0]["reason"]
    assert path.read_text(encoding="utf-8") == "mine"
    path.unlink()
    daemon.wait_ready()
    with daemon.client() as client:
        client.infer("echo", {"x": X}, timeout=10)
