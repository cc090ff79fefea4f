"""A daemon that cannot serve at all ends with a code of its own, so that its host starts it anew."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from pathlib import Path

import pytest

import trtd
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


@pytest.fixture
def install(tmp_path):
    """A copy of the package that only the children use: the daemon finds the one beside its working directory."""
    copied = tmp_path / "trtd"
    shutil.copytree(Path(trtd.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def break_part(install, part):
    """Let a kind of child end as it does where a package is missing."""
    (install / part / "main.py").write_text("import no_such_part\n", encoding="utf-8")


def test_a_router_that_can_never_start_ends_the_daemon_at_once(make_daemon, install):
    """One try, then code 69 and one line with the child's own last words."""
    daemon = make_daemon({"a": tenant()}).start(PYTHONPATH=str(install.parent))
    daemon.wait_ready()
    break_part(install, "router")
    daemon.kill_router()
    assert daemon.wait(PATIENCE_S) == 69
    cause = daemon.wait_event("daemon.gave_up")["cause"]
    assert cause == (
        "no router can be started: cannot start: ModuleNotFoundError: No module named 'no_such_part' (exit code 1)"
    )
    assert len(daemon.events("router.exited", generation=2)) == 1
    assert not daemon.events("router.exited", generation=3)
    assert "import no_such_part" in daemon.wait_event("child.start_failed", child="router")["stderr"]
    daemon.expect_no_children()


def test_a_worker_that_can_never_start_is_told_at_once(make_daemon, install):
    """One try, then quarantine with the reason; the neighbour serves, and once it is mended `resume` is enough."""
    daemon = make_daemon({"a": tenant(), "b": tenant()}).start(PYTHONPATH=str(install.parent))
    daemon.wait_ready()
    program = install / "worker" / "main.py"
    sound = program.read_text(encoding="utf-8")
    break_part(install, "worker")
    daemon.kill_worker("a")
    quarantined = daemon.wait_event("worker.quarantined", tenant="a")
    assert (quarantined["cause"], quarantined["generation"]) == ("start_failed", 2)
    a = daemon.tenant("a")
    assert "No module named 'no_such_part'" in a["reason"]
    assert a["workers"][0]["restart_in_s"] is None
    assert daemon.tenant("b")["health"] == "ready"
    program.write_text(sound, encoding="utf-8")
    daemon.call("resume", tenant="a")
    daemon.wait_ready()
