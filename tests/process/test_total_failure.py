"""A daemon that cannot serve at all ends with a code of its own, so that its host starts it anew."""

from __future__ import annotations

import contextlib
import signal
import threading

from tests.support.daemon import OperatorError, script, tenant

PATIENCE_S = 60.0


def test_a_router_that_cannot_be_kept_up_ends_the_daemon(make_daemon):
    """While somebody kills every router, the daemon gives up after its patience, with code 69 and nobody left."""
    daemon = make_daemon({"a": tenant()}, health={"give_up_after_s": 5.0}).start()
    daemon.wait_ready()
    is_over = threading.Event()

    def kill_routers() -> None:
        while not is_over.wait(0.05):
            with contextlib.suppress(OSError, OperatorError, TypeError, ValueError):
                daemon.kill_router(signal.SIGKILL)

    killer = threading.Thread(target=kill_routers)
    killer.start()
    try:
        assert daemon.wait(PATIENCE_S) == 69
    finally:
        is_over.set()
        killer.join()
    assert "router could not be kept up" in daemon.wait_event("daemon.gave_up")["cause"]
    daemon.expect_no_children()


def test_tenants_that_cannot_serve_end_it_where_that_is_wanted(make_daemon):
    """With every required tenant in quarantine the daemon gives up; one that is not required changes nothing."""
    broken, optional = tenant(script("fail_load")), tenant(required=False)
    health = {"give_up_after_s": 10.0, "give_up_without_tenants": True}
    daemon = make_daemon({"a": broken, "b": optional}, health=health).start()
    assert daemon.wait(PATIENCE_S) == 69
    assert "no required tenant" in daemon.wait_event("daemon.gave_up")["cause"]
    daemon.expect_no_children()
