"""`trtd demo --gpu`: TensorRT plans on this host's GPU, answers compared with their references, real faults survived.

Three tenants, one with two models. In the worker of one of them a kernel writes where it must not, another one traps,
and an allocation asks for too much, while all tenants are asked. Plans and references are brought by whoever runs it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtd.cli import operator
from trtd.cli.demo_steps import (
    check_answers,
    drain,
    open_client,
    report,
    require,
    running_daemon,
    runtime_dir,
    say,
    status,
    stop,
    tell,
    wait_for,
    wait_until_ready,
    worker_of,
)
from trtd.cli.picture import status_lines
from trtd.cli.terminal import has_colour
from trtd.cli.traffic import Question, Traffic
from trtd.cli.values import duration, size
from trtd.client import Client
from trtd.config.show import toml_value
from trtd.demo import plans
from trtd.errors import ExitCode

TENANTS = {
    "ranking": ("mlp.plain",),
    "vision": ("squeezenet_fp16.plain", "resnet50_fp16.vc"),
    "language": ("encoder_fp16.plain",),
}
"""Tenants and their plans; the faults are made in the worker of the first one."""
OUTPUTS = {"mlp": "y", "squeezenet_fp16": "logits", "resnet50_fp16": "logits", "encoder_fp16": "hidden"}
FAULTS = ("illegal_address", "trap")
CALLER_COUNT = 6
RECOVERY_TIMEOUT_S = 30.0


def demo(source: Path, seconds: float) -> int:
    """Run the whole of it.

    Args:
        source: directory with plans and references.
        seconds: length of the load.

    Raises:
        trtd.errors.InvalidConfig: a plan or a reference is missing.
        trtd.errors.Internal: something was not as it should be.
    """
    began_at = time.monotonic()
    plans.check_directory(source)
    with tempfile.TemporaryDirectory(prefix="trtd-demo-") as directory, contextlib.ExitStack() as stack:
        home = Path(directory)
        say(f"1. Plans from {source}, and a configuration with {len(TENANTS)} tenants")
        questions = bring_plans(source, home)
        config = write_config(home)
        say(f"2. The daemon: trtd serve --config {config}")
        daemon = stack.enter_context(running_daemon(home, config))
        wait_until_ready(home, daemon, TENANTS)
        clients = {tenant: stack.enter_context(open_client(home, tenant)) for tenant in TENANTS}
        say("3. Requests, each answer compared with its reference")
        check_answers(clients, questions)
        say(f"4. {CALLER_COUNT} callers without a pause, and real faults in the worker of {victim()}")
        fault_under_load(home, clients, questions, seconds)
        say("5. trtd status")
        show_status(home)
        say("6. trtd drain --all")
        drain(home, TENANTS)
        stop(daemon)
    say(f"All is well, in {duration(time.monotonic() - began_at)}.")
    return ExitCode.OK


def victim() -> str:
    """The tenant in whose worker the faults are made."""
    return next(iter(TENANTS))


def bring_plans(source: Path, home: Path) -> dict[str, list[Question]]:
    """Unpack the plans, and make a question of each case of their references."""
    questions: dict[str, list[Question]] = {}
    for tenant, names in TENANTS.items():
        questions[tenant] = []
        for name in names:
            path = plans.unpack_plan(source, name, home)
            model = name.partition(".")[0]
            tell(f"{tenant}: {path.name}, {size(path.stat().st_size)}")
            for case in plans.CASES:
                inputs, outputs = plans.read_reference(source / "references" / f"{model}.ref.npz", case)
                output = OUTPUTS[model]
                allowed = plans.allowed_difference(model)
                questions[tenant].append(Question(model, inputs, output, outputs[output], allowed, 0.0))
    return questions


def write_config(home: Path) -> Path:
    """A configuration file with one table for each tenant."""
    lines = ["version = 1", "[daemon]", f"runtime_dir = {toml_value(runtime_dir(home))}"]
    for tenant, names in TENANTS.items():
        lines += [f"[tenants.{tenant}]", 'runtime = "tensorrt"', "slots = 2"]
        if tenant == victim():
            lines += [f"[tenants.{tenant}.debug]", "allow_faults = true"]
        for name in names:
            lines.append(f"[tenants.{tenant}.models.{name.partition('.')[0]}]")
            lines += [f"path = {toml_value(f'{name}.plan')}", "max_batch = 32"]
    path = home / "trtd.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fault_under_load(
    home: Path, clients: Mapping[str, Client], questions: Mapping[str, list[Question]], seconds: float
) -> None:
    """Make faults in one tenant's worker while all tenants are asked, and see that no caller noticed."""
    tenants = [(tenant, client, questions[tenant]) for tenant, client in clients.items()]
    pause_s = seconds / (len(FAULTS) + 2)
    with Traffic(tenants, CALLER_COUNT) as traffic:
        time.sleep(pause_s)
        make_fault(home, "out_of_memory")
        tell("out_of_memory: refused by the device, and survived by the worker")
        for fault in FAULTS:
            time.sleep(pause_s)
            lose_worker(home, fault)
        time.sleep(pause_s)
    for tenant, tally in traffic.tallies.items():
        report(tenant, tally)
    sent = sum(tally.sent for tally in traffic.tallies.values())
    tell(f"{sent} requests, {len(FAULTS)} workers lost: no request lost, none answered wrongly")
    for tenant in TENANTS:
        restarts, expected = worker_of(home, tenant)["restarts"], len(FAULTS) if tenant == victim() else 0
        require(restarts == expected, f"{tenant} has {restarts} restarts, not {expected}")


def make_fault(home: Path, fault: str) -> None:
    """Have a real fault made in the worker of the victim."""
    operator.call(runtime_dir(home), "fault", {"tenant": victim(), "fault": fault})


def lose_worker(home: Path, fault: str) -> None:
    """Make a sticky fault and wait until the successor is ready."""
    before = worker_of(home, victim())
    made_at = time.monotonic()
    make_fault(home, fault)

    def has_successor() -> bool:
        worker = worker_of(home, victim())
        return bool(worker["generation"] > before["generation"] and worker["state"] == "ready")

    wait_for(has_successor, RECOVERY_TIMEOUT_S, f"a successor of {victim()}'s worker")
    ready_after_s = time.monotonic() - made_at
    after = worker_of(home, victim())
    tell(f"{fault}: {after['last_fault']['message']}")
    tell(f"{fault}: successor pid {after['pid']} is ready {duration(ready_after_s)} after the order")


def show_status(home: Path) -> None:
    """The daemon's status, and each worker's device memory as trtd and the driver count it."""
    record = status(home)
    for line in status_lines(record, colour=has_colour(sys.stdout)):
        tell(line)
    for tenant in record["tenants"]:
        device: dict[str, Any] | None = tenant["workers"][0]["device"]
        if device is not None:
            live, driver, beside = (device[f"{kind}_bytes"] for kind in ("live", "driver", "unaccounted"))
            told = f"holds {size(live)} of device memory; the driver counts {size(driver)}"
            tell(f"{tenant['name']}: {tenant['runtime']} {told}, of which {size(beside)} pass no allocator of trtd")
