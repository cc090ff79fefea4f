"""What is shown under a real systemd: each proof does one thing to the service and says what systemctl and journal saw.

A proof leaves the service stopped or running as it likes; each begins with a configuration and a start of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.daemon import script, tenant, wait_until
from tests.systemd.machine import PATIENCE_S, SERVICE, Machine
from tests.systemd.stage import (
    PYTHON,
    QUICK,
    Caller,
    Evidence,
    NotShown,
    calling,
    counters,
    expect,
    fresh,
    say,
    two_tenants,
    wait_for_answers,
)

POISON = 666.0
TCP_PORT = 5555
GIVE_UP_AFTER_S = 10.0
"""Longer than a router takes to start on a busy host."""

ASK = """
import sys, numpy, trtd
try:
    with trtd.Client.for_tenant(sys.argv[1]) as client:
        print(client.infer("echo", {"x": numpy.full((1, 4), float(sys.argv[2]), numpy.float32)}, timeout=60).outputs)
except trtd.errors.TrtdError as error:
    print(error)
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """One proof.

    Attributes:
        summary: what holds when it ends well.
        run: does it and gives its evidence.
    """

    summary: str
    run: Callable[[Machine], Evidence]


def start(machine: Machine) -> Evidence:
    """`systemctl start` returns when the tenants are ready."""
    two_tenants(machine)
    machine.mark()
    began_at = time.monotonic()
    machine.systemctl("start", SERVICE)
    yield f"systemctl start returned after {time.monotonic() - began_at:.2f} s"
    expect(all(entry["is_ready"] for entry in machine.status()["tenants"]), "a tenant was not ready then")
    shown = machine.systemctl("status", SERVICE)
    yield from (line.strip() for line in shown.splitlines() if "Active:" in line or "Status:" in line)
    expect('Status: "2 of 2 tenants ready' in shown, f"the status line is not there: {shown}")
    texts = machine.messages()
    ready = next(number for number, text in enumerate(texts) if "daemon.became_ready" in text)
    started = next(number for number, text in enumerate(texts) if text.startswith("Started "))
    expect(ready < started, "systemd took it for started before it was ready")
    priorities = {
        json.loads(entry["MESSAGE"])["level"]: entry["PRIORITY"] for entry in machine.journal() if _ours(entry)
    }
    expect(priorities.get("info") == "6", f"the journal has other priorities: {priorities}")
    yield f"journal: priorities by level {priorities}"


def _ours(entry: dict[str, Any]) -> bool:
    return str(entry.get("MESSAGE", "")).startswith("{")


def reload(machine: Machine) -> Evidence:
    """A good configuration is applied in place; a bad one fails the reload and changes nothing."""
    pid = fresh(machine)
    machine.configure({"a": tenant(**QUICK), "b": tenant(**QUICK), "c": tenant(**QUICK)})
    machine.systemctl("reload", SERVICE)
    yield say(machine.wait_event("config.reloaded"))
    machine.wait_show(lambda it: "3 of 3 tenants ready" in it["StatusText"], "the third tenant", "StatusText")
    good = machine.path("/etc/trtd/trtd.toml").read_text(encoding="utf-8")
    machine.write("/etc/trtd/trtd.toml", good.replace("runtime =", "runtimes ="))
    refused = machine.attempt("systemctl", "reload", SERVICE)
    expect(refused.returncode != 0, "a bad configuration was reloaded")
    yield f"systemctl reload with an unknown key: exit code {refused.returncode}"
    yield f"journal: {machine.wait_message('unknown key')[:140]}"
    shown = machine.show("ActiveState", "MainPID", "NRestarts")
    expect(shown == {"ActiveState": "active", "MainPID": str(pid), "NRestarts": "0"}, f"after it: {shown}")
    machine.write("/etc/trtd/trtd.toml", good)


def worker_failure(machine: Machine) -> Evidence:
    """A worker that dies is the daemon's business: systemd sees the same main process, clients see answers."""
    pid = fresh(machine)
    with calling(machine, "a", "b") as callers:
        victim = next(entry for entry in machine.status()["tenants"] if entry["name"] == "a")["workers"][0]
        machine.run("kill", "-KILL", str(victim["pid"]))
        yield say(machine.wait_event("worker.exited"))
        yield say(machine.wait_event("worker.became_ready"))
        counts = [caller.end() for caller in callers]
    yield f"requests meanwhile: a {counts[0]}, b {counts[1]}"
    expect(all(set(count) == {"right"} for count in counts), "a request failed")
    shown = machine.show("ActiveState", "MainPID", "NRestarts")
    expect(shown == {"ActiveState": "active", "MainPID": str(pid), "NRestarts": "0"}, f"after it: {shown}")
    yield f"systemctl show: {shown}"


def watchdog(machine: Machine) -> Evidence:
    """A supervisor that stands still is ended and started anew, and nothing of the old one is left."""
    pid = fresh(machine)
    old = {entry["workers"][0]["pid"] for entry in machine.status()["tenants"]}
    began_at = time.monotonic()
    machine.run("kill", "-STOP", str(pid))
    yield machine.wait_message("Watchdog timeout")
    yield f"bitten {time.monotonic() - began_at:.1f} s after SIGSTOP"
    machine.wait_show(
        lambda it: it["ActiveState"] == "active" and it["NRestarts"] == "1",
        "the next start",
        "ActiveState",
        "NRestarts",
    )
    expect(machine.main_pid() != pid, "it is the same process")
    alive = {int(word) for word in machine.run("ps", "-e", "-o", "pid=").split()}
    expect(not alive & {pid, *old}, f"of the old daemon live {alive & {pid, *old}}")
    yield f"NRestarts=1, main pid {pid} -> {machine.main_pid()}, no old process left"


def crash(machine: Machine) -> Evidence:
    """A supervisor that is killed takes its children along and is started anew."""
    pid = fresh(machine)
    old = {entry["workers"][0]["pid"] for entry in machine.status()["tenants"]}
    machine.run("kill", "-KILL", str(pid))
    yield machine.wait_message("Main process exited")
    machine.wait_show(
        lambda it: it["ActiveState"] == "active" and it["NRestarts"] == "1",
        "the next start",
        "ActiveState",
        "NRestarts",
    )
    alive = {int(word) for word in machine.run("ps", "-e", "-o", "pid=").split()}
    expect(not alive & {pid, *old}, f"of the old daemon live {alive & {pid, *old}}")
    yield f"NRestarts=1, main pid {pid} -> {machine.main_pid()}, no old process left"


def restart(machine: Machine) -> Evidence:
    """`systemctl restart` drains first; clients see a pause, not an error: their sockets are open throughout."""
    machine.systemctl("stop", SERVICE)
    two_tenants(machine)
    machine.systemctl("start", "trtd@a.socket")
    machine.systemctl("start", SERVICE)
    machine.mark()
    with calling(machine, "a") as callers:
        pid = machine.main_pid()
        machine.systemctl("restart", SERVICE)
        yield say(machine.wait_event("daemon.stop_begun"))
        yield say(machine.wait_event("tenant.drained"))
        yield say(machine.wait_event("daemon.stopped"))
        expect(machine.main_pid() not in (0, pid), "it is the same process")
        before = counters(machine, "a").get("answered", 0)
        wait_until(
            lambda: counters(machine, "a").get("answered", 0) > before + 20, "answers of the new one", PATIENCE_S
        )
        counts = callers[0].end()
    machine.systemctl("stop", "trtd@a.socket", SERVICE)
    yield f"requests over the restart: {counts}"
    expect(set(counts) <= {"right", "draining"} and counts["right"], "a request was lost or answered wrongly")


def drain_on_stop(machine: Machine) -> Evidence:
    """`systemctl stop` returns when the accepted requests are answered, and the service has ended well."""
    machine.systemctl("stop", SERVICE)
    machine.configure({"a": tenant(script("sleep", seconds=3.0), **QUICK)})
    machine.systemctl("start", SERVICE)
    machine.mark()
    slow = subprocess.Popen(
        machine.argv("trtd", "infer", "a", "echo", "--input", "x=ones", "--shape", "x=1,4"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: machine.status()["tenants"][0]["workers"][0]["in_flight"], "a running batch", PATIENCE_S)
        began_at = time.monotonic()
        machine.systemctl("stop", SERVICE)
        took_s = time.monotonic() - began_at
        answer, _ = slow.communicate(timeout=PATIENCE_S)
    finally:
        slow.kill()
    expect(slow.returncode == 0, f"the request under way failed: {answer}")
    yield f"systemctl stop took {took_s:.2f} s; the request under way: {answer.splitlines()[0]}"
    shown = machine.show("ActiveState", "Result", "ExecMainStatus")
    expect(shown == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, f"after it: {shown}")
    yield say(machine.wait_event("daemon.stopped"))


def socket_activation(machine: Machine) -> Evidence:
    """The first request to a tenant's socket starts the service, and is answered."""
    machine.systemctl("stop", SERVICE)
    two_tenants(machine)
    machine.systemctl("start", "trtd@a.socket")
    expect(machine.show("ActiveState")["ActiveState"] == "inactive", "the service runs already")
    machine.mark()
    caller = Caller(machine, "a")
    try:
        machine.wait_show(lambda it: it["ActiveState"] == "active", "the start of the service", "ActiveState")
        wait_for_answers(machine, "a")
        yield f"systemctl show: {machine.show('ActiveState', 'TriggeredBy')}"
        router = machine.status()["router"]
        machine.run("kill", "-KILL", str(router["pid"]))
        yield say(machine.wait_event("router.exited"))
        wait_until(lambda: machine.status()["router"]["state"] == "ready", "the next router", PATIENCE_S)
        wait_for_answers(machine, "a")
        counts = caller.end()
    finally:
        caller.kill()
    yield f"requests, the first of them while nothing ran: {counts}"
    expect(set(counts) == {"right"}, "a request failed")
    machine.systemctl("stop", "trtd@a.socket", SERVICE)


def total_failure(machine: Machine) -> Evidence:
    """A daemon that cannot keep its router up ends with an exit code, and systemd starts it anew."""
    pid = fresh(
        machine, health={"give_up_after_s": GIVE_UP_AFTER_S}, router={"restart": {"budget": 0, "probe_after_s": 0}}
    )
    machine.run("kill", "-KILL", str(machine.status()["router"]["pid"]))
    yield machine.wait_message("Main process exited")
    machine.wait_show(
        lambda it: it["ActiveState"] == "active" and it["NRestarts"] == "1",
        "the next start",
        "ActiveState",
        "NRestarts",
    )
    expect(machine.main_pid() != pid, "it is the same process")
    machine.run("trtd", "infer", "a", "echo", "--input", "x=ones", "--shape", "x=1,4")
    yield f"NRestarts=1, main pid {pid} -> {machine.main_pid()}, requests are answered"


def bad_configuration(machine: Machine) -> Evidence:
    """A configuration that cannot be used stops the unit with its reason, and is not tried again and again."""
    machine.systemctl("stop", SERVICE)
    machine.mark()
    machine.write("/etc/trtd/trtd.toml", "version = 1\nsurprise = 1\n")
    refused = machine.attempt("systemctl", "start", SERVICE)
    expect(refused.returncode != 0, "it started")
    yield f"journal: {machine.wait_message('surprise')}"
    shown = machine.show("ActiveState", "ExecMainStatus")
    expect(shown == {"ActiveState": "failed", "ExecMainStatus": "78"}, f"after it: {shown}")
    expect(not any("Scheduled restart" in text for text in machine.messages()), "it was tried again")
    yield f"systemctl show: {shown}, no restart scheduled"
    machine.systemctl("reset-failed", SERVICE)


def missing_gpu(machine: Machine) -> Evidence:
    """Device nodes that do not come are named by the unit that waits for them; the other tenants serve."""
    machine.systemctl("stop", SERVICE, "trtd-devices.service")
    machine.write(
        "/etc/systemd/system/trtd-devices.service.d/patience.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/trtd doctor --wait-for-devices 1\n",
    )
    machine.systemctl("daemon-reload")
    machine.write("/etc/trtd/plan", "no plan")
    plan = {"models": {"m": {"path": "/etc/trtd/plan"}}, "runtime": "tensorrt"}
    machine.configure({"a": tenant(**QUICK), "gpu": plan})
    machine.mark()
    machine.systemctl("start", SERVICE)
    yield f"journal: {machine.wait_message('has no nvidiactl', 'trtd-devices.service')}"
    machine.run("trtd", "infer", "a", "echo", "--input", "x=ones", "--shape", "x=1,4")
    text = machine.wait_show(lambda it: "gpu" in it["StatusText"], "the status line", "StatusText")["StatusText"]
    yield f"systemctl status: {text}"
    machine.systemctl("stop", SERVICE)


def credentials(machine: Machine) -> Evidence:
    """With drop-ins the router's secret key comes as a credential, and a tenant listens on TCP."""
    import zmq

    machine.systemctl("stop", SERVICE)
    drop_ins = machine.path("/opt/trtd/systemd/drop-ins")
    for name in ("curve.conf", "network.conf"):
        machine.write(f"/etc/systemd/system/trtd.service.d/{name}", (drop_ins / name).read_text(encoding="utf-8"))
    _, secret = zmq.curve_keypair()
    machine.write("/etc/trtd/curve-secret-key", secret.decode(), mode=0o600)
    machine.configure({"a": tenant(tcp={"listen": f"127.0.0.1:{TCP_PORT}"}, **QUICK)})
    machine.systemctl("daemon-reload")
    machine.mark()
    machine.systemctl("start", SERVICE)
    inside = machine.path("/run/credentials/trtd.service")
    yield f"credentials: {sorted(path.name for path in inside.iterdir())}"
    expect(not machine.events("endpoint.open_failed"), "the endpoint could not be opened")
    expect(
        ":5555" in machine.run("cat", "/proc/net/tcp") or ":15B3" in machine.run("cat", "/proc/net/tcp"), "no listener"
    )
    yield "127.0.0.1:5555 listens, with the key from the credential"
    machine.systemctl("stop", SERVICE)
    for name in ("curve.conf", "network.conf"):
        machine.path(f"/etc/systemd/system/trtd.service.d/{name}").unlink()
    machine.systemctl("daemon-reload")


def worker_groups(machine: Machine) -> Evidence:
    """Each worker has a cgroup with its limits; one that takes more is ended by the kernel, and nobody else is."""
    machine.systemctl("stop", SERVICE)
    leak = script("leak", when=POISON, bytes=1 << 30)
    # The memory is written in one go, during which a slow machine gives no life sign.
    hungry = tenant(leak, memory={"limit_bytes": 160 << 20}, health={"beat_s": 20.0}, **QUICK)
    machine.configure({"a": hungry, "b": tenant(**QUICK)})
    machine.systemctl("start", SERVICE)
    machine.mark()
    held_by = machine.status()["daemon"]["memory_limits"]
    if not held_by.startswith("cgroup "):
        raise NotShown(f"the daemon says: {held_by}")
    base = machine.path(held_by.removeprefix("cgroup "))
    for group in sorted(base.glob("worker-*")):
        limits = {name: (group / name).read_text().strip() for name in ("memory.max", "memory.oom.group", "pids.max")}
        yield f"{group.name}: {limits}"
    neighbour = machine.status()["tenants"][1]["workers"][0]["pid"]
    asked = machine.attempt(*PYTHON, "-c", ASK, "a", str(POISON))
    yield f"a request that takes 1 GiB: {asked.stdout.strip()}"
    yield say(machine.wait_event("worker.exited", tenant="a"))
    answer = machine.run(*PYTHON, "-c", ASK, "a", "1.0")
    yield f"the next request: {answer.strip()}"
    expect(machine.status()["tenants"][1]["workers"][0]["pid"] == neighbour, "the neighbour was replaced")
    exits = machine.events("worker.exited")
    expect({line["cause"] for line in exits} == {"out_of_memory"}, f"the journal has other causes: {exits}")
    expect({line["tenant"] for line in exits} == {"a"}, f"another tenant suffered: {exits}")
    shown = machine.show("ActiveState", "NRestarts")
    expect(shown == {"ActiveState": "active", "NRestarts": "0"}, f"after it: {shown}")


PROOFS: dict[str, Proof] = {
    "start": Proof("systemctl start returns when the tenants are ready", start),
    "reload": Proof("a good configuration is applied, a bad one refused, in place", reload),
    "worker": Proof("a killed worker is replaced by the daemon; no request fails", worker_failure),
    "watchdog": Proof("a supervisor that stands still is bitten and started anew", watchdog),
    "crash": Proof("a killed supervisor takes its children along and is started anew", crash),
    "restart": Proof("systemctl restart drains first", restart),
    "stop": Proof("systemctl stop waits for the accepted requests", drain_on_stop),
    "socket": Proof("the first request starts the service; the socket outlives routers", socket_activation),
    "failure": Proof("a daemon without a router ends, and is started anew", total_failure),
    "config": Proof("a bad configuration stops the unit, with the reason, once", bad_configuration),
    "gpu": Proof("missing device nodes are named, other tenants serve", missing_gpu),
    "key": Proof("the CURVE key comes as a credential", credentials),
    "cgroup": Proof("each worker has a cgroup with its limits", worker_groups),
}
