"""Workers, routers and supervisors that die or hang: who notices, who is hit, who is not."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from tests.support.daemon import children_of, script, tenant, wait_until
from trtd.config.model import RouterHealth

POISON = 666.0


def row(value: float = 1.0) -> np.ndarray:
    return np.full((1, 4), value, np.float32)


def test_a_killed_worker_is_replaced_and_its_neighbour_is_not(make_daemon):
    """A SIGKILL costs the worker's tenant a new generation, with the time it took; other tenants keep theirs."""
    daemon = make_daemon({"a": tenant(), "b": tenant()}).start()
    before = daemon.wait_ready()
    generation = daemon.kill_worker("a")
    daemon.wait_event("worker.exited", tenant="a", generation=generation, cause="killed", signal=9)
    recovered = daemon.wait_event("worker.recovered", tenant="a", generation=generation + 1)
    daemon.wait_ready()
    a = daemon.worker("a")
    assert (a["generation"], a["restarts"], a["last_fault"]["kind"]) == (generation + 1, 1, "killed")
    assert a["recovery_s"] == pytest.approx(recovered["recovery_s"])
    assert daemon.worker("b")["pid"] == before["tenants"][1]["workers"][0]["pid"]


def test_requests_of_a_killed_worker_are_answered_by_its_successor(make_daemon):
    """Requests that a worker held when it was killed get their one right answer from the next generation."""
    daemon = make_daemon({"a": tenant(script("sleep", seconds=0.5))}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        handles = [client.submit("echo", {"x": row(number)}) for number in range(4)]
        daemon.wait_status(lambda status: status["tenants"][0]["workers"][0]["in_flight"] > 0, "a running batch")
        generation = daemon.kill_worker("a")
        answers = [handle.result(20) for handle in handles]
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["x"], row(number))
    assert answers[0].generation == generation + 1


def test_a_stopped_worker_is_set_aside_and_comes_back(make_daemon):
    """SIGSTOP costs a worker its work, which its sibling does, and not its life; SIGCONT brings it back."""
    table = tenant(script("sleep", seconds=0.2), replicas=2, health={"beat_s": 0.5})
    daemon = make_daemon({"a": table}).start()
    pids = {worker["pid"] for worker in daemon.wait_ready()["tenants"][0]["workers"]}
    with daemon.client() as client:
        handles = [client.submit("echo", {"x": row(number)}) for number in range(8)]
        generation = daemon.kill_worker("a", number=signal.SIGSTOP)
        stopped = daemon.wait_event("worker.stopped", tenant="a", replica=0, generation=generation)
        for number, handle in enumerate(handles):
            np.testing.assert_array_equal(handle.result(20)["x"], row(number))
        status = daemon.tenant("a")
        assert (status["health"], [worker["is_stopped"] for worker in status["workers"]]) == ("degraded", [True, False])
        os.kill(stopped["pid"], signal.SIGCONT)
        daemon.wait_event("worker.continued", tenant="a", replica=0, generation=generation)
        daemon.wait_ready()
        os.kill(daemon.worker("a", 1)["pid"], signal.SIGSTOP)
        np.testing.assert_array_equal(client.infer("echo", {"x": row(9.0)}, timeout=20)["x"], row(9.0))
        os.kill(daemon.worker("a", 1)["pid"], signal.SIGCONT)
    assert {worker["pid"] for worker in daemon.wait_ready()["tenants"][0]["workers"]} == pids


def test_a_worker_that_stays_stopped_is_replaced(make_daemon):
    """After [health] stopped_s a stopped worker is killed, and its only request is answered by its successor."""
    daemon = make_daemon({"a": tenant(health={"beat_s": 0.2, "stopped_s": 1.0})}).start()
    daemon.wait_ready()
    generation = daemon.kill_worker("a", number=signal.SIGSTOP)
    with daemon.client() as client:
        assert client.infer("echo", {"x": row()}, timeout=20).generation == generation + 1
    exited = daemon.wait_event("worker.exited", tenant="a", generation=generation, cause="beat_missed")
    assert exited["message"].startswith("was stopped by a signal for ")


@pytest.mark.parametrize("who", ["supervisor", "all"])
def test_a_pause_of_the_supervisor_costs_nobody_his_life(make_daemon, who):
    """Beats that came while the supervisor stood still count, and a pause of all processes is nobody's silence."""
    impatient = {"beat_s": 0.5}
    daemon = make_daemon({"a": tenant(health=impatient), "b": tenant(health=impatient)}, router={"health": impatient})
    daemon.start()
    before = daemon.wait_ready()
    children = [before["router"]["pid"], *(entry["workers"][0]["pid"] for entry in before["tenants"])]
    paused = [daemon.pid] if who == "supervisor" else [daemon.pid, *children]
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    for pid in paused:
        os.kill(pid, signal.SIGCONT)
    with daemon.client() as client:
        client.infer("echo", {"x": row()}, timeout=20)
    time.sleep(1.0)
    after = daemon.wait_ready()
    assert [after["router"]["pid"], *(entry["workers"][0]["pid"] for entry in after["tenants"])] == children


@pytest.mark.parametrize(
    ("behaviour", "cause"), [("hang", "progress_stalled"), ("hang_holding_gil", "beat_missed"), ("crash", "crashed")]
)
def test_an_input_that_ends_workers_spares_the_others(make_daemon, behaviour, cause):
    """A request that hangs or crashes its worker gets a typed error; requests beside it get their answers."""
    health = {"beat_s": 0.5, "progress_s": 0.5}
    restart = {"base_s": 0.01, "cap_s": 0.05}
    daemon = make_daemon({"a": tenant(script(behaviour, when=POISON), health=health, restart=restart)}).start()
    daemon.wait_ready()
    with daemon.client() as client:
        handles = {value: client.submit("echo", {"x": row(value)}) for value in (1.0, POISON, 2.0)}
        assert handles[POISON].exception(30).code in {"poisonous", "worker_lost"}
        for value in (1.0, 2.0):
            np.testing.assert_array_equal(handles[value].result(30)["x"], row(value))
    daemon.wait_event("worker.exited", tenant="a", cause=cause)


def test_one_client_cannot_use_up_a_tenants_restarts(make_daemon):
    """Six poisonous inputs, each another one: the tenant serves on at no charge, and their sender is barred."""
    restart = {"base_s": 0.01, "cap_s": 0.05, "budget": 3, "window_s": 600.0}
    daemon = make_daemon({"a": tenant(script("crash", when=POISON), restart=restart)}).start()
    daemon.wait_ready()
    codes = []
    with daemon.client() as client:
        for number in range(6):
            poison = row(POISON)
            poison[0, 1] = number
            codes.append(client.submit("echo", {"x": poison}).exception(30).code)
        assert codes == ["poisonous"] * 2 + ["barred"] * 4
        daemon.wait_event("input.convicted", count=2, tenant="a", owner=f"uid:{os.geteuid()}")
        daemon.wait_event("client.barred", tenant="a", owner=f"uid:{os.geteuid()}")
        status = daemon.wait_ready()["tenants"][0]
        assert (status["workers"][0]["state"], status["workers"][0]["deaths_in_window"]) == ("ready", 0)
        wait_until(lambda: daemon.tenant("a")["counters"]["convicted"] == 2, "the convictions")
        wait_until(lambda: daemon.tenant("a")["counters"]["excused"] == 5, "the deaths that are excused")
        wait_until(lambda: daemon.tenant("a")["barred"], "the client that is barred")
        assert [barred["owner"] for barred in daemon.tenant("a")["barred"]] == [f"uid:{os.geteuid()}"]
        daemon.call("resume", tenant="a")
        np.testing.assert_array_equal(client.infer("echo", {"x": row()}, timeout=20)["x"], row())


def test_a_killed_router_is_replaced_without_touching_workers(daemon):
    """A SIGKILL of the router costs no worker its life, and clients are answered again; counters go on."""
    with daemon.client() as client:
        client.infer("echo", {"x": row()})
        wait_until(lambda: daemon.tenant("a")["counters"]["accepted"] == 1, "the first count")
        pid = daemon.worker("a")["pid"]
        generation = daemon.kill_router()
        client.infer("echo", {"x": row()}, timeout=20)
    status = daemon.wait_ready()
    assert status["router"]["generation"] == generation + 1
    assert daemon.worker("a")["pid"] == pid
    wait_until(lambda: daemon.tenant("a")["counters"]["accepted"] == 2, "the counts of both routers")


def test_a_crash_loop_ends_in_quarantine_and_resume_ends_that(make_daemon):
    """A tenant over its restart budget is quarantined; clients get a typed error; resume is the way out."""
    daemon = make_daemon({"a": tenant(restart={"budget": 1, "base_s": 0.01, "probe_after_s": 0}), "b": tenant()})
    daemon.start()
    daemon.wait_ready()
    for number in range(2):
        generation = daemon.kill_worker("a")
        if number == 0:
            daemon.wait_event("worker.became_ready", tenant="a", generation=generation + 1)
    daemon.wait_event("worker.quarantined", tenant="a", cause="killed")
    a = daemon.tenant("a")
    assert (a["health"], a["workers"][0]["state"]) == ("unavailable", "quarantined")
    assert "killed by SIGKILL" in a["reason"]
    with daemon.client() as client, pytest.raises(Exception, match="unavailable"):
        client.infer("echo", {"x": row()}, timeout=10)
    daemon.call("resume", tenant="a")
    daemon.wait_ready()
    with daemon.client() as client:
        client.infer("echo", {"x": row()}, timeout=10)


def test_a_bad_model_is_told_and_not_tried_again(make_daemon):
    """A model file that cannot be loaded ends in quarantine at once, with the reason, while other tenants serve."""
    daemon = make_daemon({"a": tenant({"inputs": "nonsense"}), "b": tenant()}).start()
    daemon.wait_listening()
    daemon.wait_event("worker.quarantined", tenant="a", cause="bad_model")
    daemon.wait_status(lambda status: status["tenants"][1]["health"] == "ready", "the other tenant")
    worker = daemon.worker("a")
    assert (worker["restarts"], worker["last_fault"]["permanent"]) == (0, True)


def test_a_killed_supervisor_leaves_no_orphan(make_daemon):
    """Within a second of a SIGKILL of the supervisor none of its children lives, and the next daemon serves."""
    daemon = make_daemon({"a": tenant(), "b": tenant(replicas=2)})
    for _ in range(5):
        daemon.start()
        daemon.wait_ready()
        assert len(children_of(daemon.pid)) == 4
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        daemon.expect_no_children(patience_s=1.0)


def test_orphans_of_a_worker_are_ended(make_daemon):
    """What a worker's process leaves behind when it dies goes with its group."""
    daemon = make_daemon().start()
    daemon.wait_ready()
    pid = daemon.worker("a")["pid"]
    assert os.getpgid(pid) == pid
    daemon.kill_worker("a")
    daemon.wait_event("worker.exited", tenant="a")
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_worker_over_its_memory_limit_leaves_and_is_replaced(make_daemon):
    """A worker that grows beyond its limit ends with that cause; the status says what enforces the limit."""
    limit_bytes = 256 << 20
    leak = script("leak", when=POISON, bytes=limit_bytes)
    daemon = make_daemon({"a": tenant(leak, memory={"limit_bytes": limit_bytes}), "b": tenant()}).start()
    daemon.wait_ready()
    worker = daemon.worker("a")
    assert worker["memory_limit_bytes"] == limit_bytes
    assert worker["memory_enforcement"] in {"rss", "cgroup"}
    with daemon.client() as client:
        client.submit("echo", {"x": row(POISON)})
        daemon.wait_event("worker.exited", tenant="a", generation=worker["generation"], cause="out_of_memory")
        client.infer("echo", {"x": row()}, timeout=20)
    assert daemon.worker("b")["restarts"] == 0


def test_the_router_is_restarted_as_its_own_section_says(make_daemon):
    """The delay before a router that dies again and again is restarted is that of [router.restart]."""
    daemon = make_daemon(router={"restart": {"base_s": 0.001, "cap_s": 0.001, "healthy_after_s": 60.0}}).start()
    daemon.wait_ready()
    for count in range(1, 4):
        daemon.kill_router()
        daemon.wait_event("router.became_ready", count=count + 1)
    assert daemon.events("router.exited")[-1]["restart_in_s"] <= 0.002


def test_a_stopped_router_is_replaced_after_the_patience_of_its_own_section(make_daemon):
    """A router that stays stopped for [router.health] stopped_s is replaced, and the next one serves."""
    daemon = make_daemon(router={"health": {"beat_s": 0.5, "stopped_s": 1.0}}).start()
    daemon.wait_ready()
    daemon.kill_router(signal.SIGSTOP)
    exited = daemon.wait_event("router.exited", cause="beat_missed")
    stopped_s = float(exited["message"].removeprefix("was stopped by a signal for ").removesuffix(" s"))
    assert 1.0 <= stopped_s < RouterHealth().stopped_s
    assert daemon.events("router.stopped")
    with daemon.client() as client:
        client.infer("echo", {"x": row()}, timeout=20)
