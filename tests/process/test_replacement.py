"""Replaced workers under load: the successor earns READY first, and one that cannot leaves the old one serving."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.daemon import Daemon, OperatorError, script, tenant, wait_until
from trtd.demo.models import mlp
from trtd.errors import TrtdError

CALLERS = 8


def row(value: float = 1.0) -> np.ndarray:
    return np.full((1, 4), value, np.float32)


class Load:
    """What callers saw so far: right answers by the generation that gave them, and errors by their code."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.done = threading.Event()
        self.lock = threading.Lock()

    def ask(self, daemon: Daemon, number: int) -> None:
        """One caller, until the end."""
        with daemon.client() as client:
            while not self.done.is_set():
                try:
                    answer = client.infer("echo", {"x": row(number)}, timeout=20)
                    np.testing.assert_array_equal(answer["x"], row(number))
                except TrtdError as error:
                    with self.lock:
                        self.errors[str(error.code)] += 1
                else:
                    with self.lock:
                        self.answers[answer.generation] += 1


@contextmanager
def callers(daemon: Daemon) -> Iterator[Load]:
    """Eight callers of tenant `a`, each asking as soon as it has its answer."""
    load = Load()
    threads = [threading.Thread(target=load.ask, args=(daemon, number)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.done.set()
        for thread in threads:
            thread.join()


def break_model(daemon: Daemon, name: str = "a") -> Path:
    """Overwrite the tenant's model file with something that is no model."""
    path = daemon.directory / f"{name}.echo.json"
    path.write_text("this is no model", encoding="utf-8")
    return path


@pytest.mark.parametrize(("command", "args"), [("reload", {}), ("restart", {"tenant": "a"})])
def test_a_broken_file_leaves_the_old_version_serving(make_daemon, command, args):
    """One replica, eight callers: the command fails with the reason, no request does, and the old process serves."""
    daemon = make_daemon({"a": tenant()}).start()
    pid = daemon.wait_ready()["tenants"][0]["workers"][0]["pid"]
    with callers(daemon) as load:
        break_model(daemon)
        with pytest.raises(OperatorError) as failed:
            daemon.call(command, **args)
        after = daemon.tenant("a")
    assert failed.value.code == "unavailable"
    assert str(failed.value).startswith("unavailable: tenant a: successor a/1 did not become ready: model 'echo'")
    assert str(failed.value).endswith("; the old version serves")
    assert after["replacement"]["state"] == "failed"
    assert daemon.events("tenant.replacement_failed", tenant="a")
    assert [(worker["pid"], worker["state"]) for worker in after["workers"]] == [(pid, "ready")]
    assert not load.errors
    assert set(load.answers) == {1}


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("command", ["reload", "restart"])
def test_a_good_replacement_loses_no_request(make_daemon, command, replicas):
    """Eight callers: every answer is right, the first from the old generation and the last from the new one."""
    daemon = make_daemon({"a": tenant(replicas=replicas)}).start()
    before = {worker["pid"] for worker in daemon.wait_ready()["tenants"][0]["workers"]}
    with callers(daemon) as load:
        if command == "reload":
            daemon.configure({"a": tenant(script(), replicas=replicas, threads=2)})
            daemon.call("reload")
        else:
            daemon.call("restart", tenant="a")
        after = daemon.tenant("a")
    assert not load.errors
    assert len(after["workers"]) == replicas
    assert all(worker["state"] == "ready" for worker in after["workers"])
    assert not before & {worker["pid"] for worker in after["workers"]}


@pytest.mark.parametrize("command", [["reload"], ["restart", "a"]])
def test_the_command_line_says_so_in_one_line_and_fails(make_daemon, command):
    """`trtd reload` and `trtd restart` end with 69, and stderr has the tenant, the reason and what to do."""
    daemon = make_daemon({"a": tenant()}).start()
    daemon.wait_ready()
    break_model(daemon)
    argv = [sys.executable, "-m", "trtd.cli.main", *command, "--runtime-dir", str(daemon.runtime_dir)]
    outcome = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 69
    lines = [line for line in outcome.stderr.splitlines() if "tenant a: " in line]
    assert len(lines) == 1
    assert "not a script" in lines[0]


def test_a_missing_file_leaves_the_old_version_serving_and_its_crash_harmless(make_daemon):
    """A path where nothing is: the reload fails, and the old worker that is killed comes back from the old path."""
    daemon = make_daemon({"a": tenant(), "b": tenant()}).start()
    daemon.wait_ready()
    table = tenant()
    table["models"] = {"echo": {"path": str(daemon.directory / "missing.json")}}
    daemon.configure({"a": table, "b": tenant(replicas=2)})
    with pytest.raises(OperatorError, match=r"tenant a: successor a/1 did not become ready: .*missing\.json") as failed:
        daemon.call("reload")
    assert failed.value.details["failed"].keys() == {"a"}
    assert failed.value.details["changed"] == ["a", "b"]
    assert len(daemon.tenant("b")["workers"]) == 2
    generation = daemon.kill_worker("a")
    daemon.wait_event("worker.became_ready", tenant="a", replica=0, generation=generation + 1)
    with daemon.client() as client:
        np.testing.assert_array_equal(client.infer("echo", {"x": row()}, timeout=20)["x"], row())
    daemon.configure({"a": tenant(), "b": tenant(replicas=2)})
    daemon.call("reload")
    assert daemon.tenant("a")["replacement"] is None


def test_a_repaired_file_is_taken_in_by_the_next_reload(make_daemon):
    """After a failure the same command succeeds once the file is right, without another word to the daemon."""
    daemon = make_daemon({"a": tenant()}).start()
    daemon.wait_ready()
    path = break_model(daemon)
    with pytest.raises(OperatorError):
        daemon.call("restart", tenant="a")
    daemon.configure({"a": tenant()})
    assert path.read_text(encoding="utf-8") != "this is no model"
    daemon.call("reload")
    a = daemon.tenant("a")
    assert (a["health"], a["replacement"], a["workers"][0]["name"]) == ("ready", None, "a/1")


def test_a_slow_successor_is_seen_while_the_tenant_is_ready(make_daemon):
    """While two workers exist: status names the successor, health and readiness do not move, and one answer is told."""
    daemon = make_daemon({"a": tenant()}).start()
    daemon.wait_ready()
    daemon.configure({"a": tenant(script("slow_load", seconds=1.5))})
    reload = threading.Thread(target=daemon.call, args=("reload",))
    reload.start()
    a = wait_until(
        lambda: next((t for t in daemon.status()["tenants"] if len(t["workers"]) == 2), None), "the second worker"
    )
    assert [worker["role"] for worker in a["workers"]] == ["member", "successor"]
    assert (a["health"], a["is_ready"], a["replacement"]["state"]) == ("ready", True, "running")
    reload.join()
    a = daemon.tenant("a")
    assert [(worker["name"], worker["role"]) for worker in a["workers"]] == [("a/1", "member")]
    assert (a["workers"][0]["restarts"], a["replacement"]) == (1, None)
    begun = daemon.wait_event("tenant.replacement_begun", tenant="a")
    assert begun["workers"] == 1
    daemon.wait_event("tenant.replaced", tenant="a")
    daemon.wait_event("worker.exited", tenant="a", replica=0, generation=1, exit_code=0)


def test_stop_first_has_one_worker_at_a_time(make_daemon):
    """The place keeps its number, requests wait for the successor, and a broken one is told with the tenant down."""
    daemon = make_daemon({"a": tenant(replace="stop-first")}).start()
    daemon.wait_ready()
    with callers(daemon) as load:
        daemon.call("restart", tenant="a")
        assert [worker["name"] for worker in daemon.tenant("a")["workers"]] == ["a/0"]
    assert not load.errors
    break_model(daemon)
    with pytest.raises(OperatorError, match="tenant a: worker a/0 is quarantined: model 'echo'"):
        daemon.call("reload")


def test_new_weights_beside_a_model_are_taken_in(make_daemon, tmp_path):
    """A reload replaces the worker when the data beside its ONNX model are another file of the same size and time."""
    model, weights = tmp_path / "m.onnx", tmp_path / "w.data"
    answers = []
    daemon = make_daemon({"a": {"runtime": "onnxruntime", "models": {"m": {"path": str(model)}}}})
    for seed in (1, 2):
        fresh = tmp_path / str(seed)
        fresh.mkdir()
        proto = onnx.load_from_string(mlp(seed))
        onnx.save(proto, fresh / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
        if seed == 1:
            (fresh / "m.onnx").replace(model)
        else:
            shutil.copystat(weights, fresh / "w.data")
        (fresh / "w.data").replace(weights)
        if seed == 1:
            daemon.start()
            daemon.wait_ready()
        else:
            assert daemon.call("reload")["changed"] == ["a"]
        with daemon.client() as client:
            answers.append(client.infer("m", {"x": np.ones((1, 64), np.float32)}, timeout=20)["y"])
    assert not np.array_equal(*answers)


def test_a_drained_tenant_is_resumed_not_restarted(daemon):
    """The refusal names the command that does what was meant."""
    daemon.call("drain", tenant="a")
    with pytest.raises(OperatorError, match="tenant a is drained and has no worker"):
        daemon.call("restart", tenant="a")
    daemon.call("resume", tenant="a")
    daemon.wait_ready()
