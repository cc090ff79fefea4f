"""`trtd demo`: the daemon's main job on this very machine, with every figure printed and every answer checked.

Three tenants with models made on the spot, a worker killed under load, status, drain. Everything is in a temporary
directory and gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from trtd.cli import demo_gpu
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
from trtd.cli.values import duration
from trtd.client import Client
from trtd.config.show import toml_value
from trtd.demo import models
from trtd.errors import ExitCode

MODELS: dict[str, Callable[[], bytes]] = {"cnn": lambda: models.cnn(seed=1), "mlp": lambda: models.mlp(seed=2)}
TENANTS = {"vision": "cnn", "ranking": "mlp", "forecast": "mlp"}
"""Tenants and the model of each; the first one's worker is killed."""
INPUT_SHAPES = {"cnn": ("image", (1, 3, 32, 32)), "mlp": ("x", (1, 64))}

QUESTION_COUNT = 64
CALLER_COUNT = 8
KILL_COUNT = 3
RECOVERY_TIMEOUT_S = 30.0


def demo(args: argparse.Namespace) -> int:
    """Run the whole of it.

    Raises:
        trtd.errors.Internal: something was not as it should be.
    """
    if args.gpu is not None:
        return demo_gpu.demo(Path(args.gpu or os.environ.get("TRTD_GPU_ASSETS", ".")), args.seconds)
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trtd-demo-") as directory, contextlib.ExitStack() as stack:
        home = Path(directory)
        say("1. Models with random weights, and a configuration with three tenants")
        questions = make_models(home)
        config = write_config(home)
        say(f"2. The daemon: trtd serve --config {config}")
        daemon = stack.enter_context(running_daemon(home, config))
        wait_until_ready(home, daemon, TENANTS)
        clients = {tenant: stack.enter_context(open_client(home, tenant)) for tenant in TENANTS}
        say("3. Requests, each answer compared with ONNX Runtime in this process")
        check_answers(clients, questions)
        say(f"4. {CALLER_COUNT} callers without a pause, and SIGKILL for the worker of {victim()}, {KILL_COUNT} times")
        kill_under_load(home, clients, questions, args.seconds)
        say("5. trtd status")
        for line in status_lines(status(home), colour=has_colour(sys.stdout)):
            tell(line)
        say("6. trtd drain --all")
        drain(home, TENANTS)
        stop(daemon)
    say(f"All is well, in {duration(time.monotonic() - began_at)}.")
    return ExitCode.OK


def exit_code(code: int, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """What was to be said has been said on the way."""
    return code


def victim() -> str:
    """The tenant whose worker is killed."""
    return next(iter(TENANTS))


def make_models(home: Path) -> dict[str, list[Question]]:
    """Write the models, and let ONNX Runtime answer questions for each tenant."""
    from trtd.runtime.ort import ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    rng = np.random.default_rng(0)
    questions: dict[str, list[Question]] = {}
    for name, make in MODELS.items():
        data = make()
        (home / f"{name}.onnx").write_bytes(data)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        tell(f"{name}.onnx, {len(data)} bytes")
        input_name, shape = INPUT_SHAPES[name]
        output = session.get_outputs()[0].name
        for tenant in (tenant for tenant, model in TENANTS.items() if model == name):
            inputs = [{input_name: rng.standard_normal(shape, dtype=np.float32)} for _ in range(QUESTION_COUNT)]
            questions[tenant] = [Question(name, each, output, session.run([output], each)[0]) for each in inputs]
    return questions


def write_config(home: Path) -> Path:
    """A configuration file with one table for each tenant."""
    lines = ["version = 1", "[daemon]", f"runtime_dir = {toml_value(runtime_dir(home))}"]
    for tenant, model in TENANTS.items():
        lines += [f"[tenants.{tenant}.models.{model}]", f"path = {toml_value(f'{model}.onnx')}"]
    path = home / "trtd.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def kill_under_load(
    home: Path, clients: Mapping[str, Client], questions: Mapping[str, list[Question]], seconds: float
) -> None:
    """Kill one tenant's worker again and again while all tenants are asked, and see that no caller noticed."""
    tenants = [(tenant, client, questions[tenant]) for tenant, client in clients.items()]
    pause_s = seconds / (KILL_COUNT + 1)
    with Traffic(tenants, CALLER_COUNT) as traffic:
        for _ in range(KILL_COUNT):
            time.sleep(pause_s)
            kill_worker(home, victim())
        time.sleep(pause_s)
    for tenant, tally in traffic.tallies.items():
        report(tenant, tally)
    sent = sum(tally.sent for tally in traffic.tallies.values())
    tell(f"{sent} requests, {KILL_COUNT} workers killed: none lost, none answered wrongly")
    for tenant in TENANTS:
        restarts, expected = worker_of(home, tenant)["restarts"], KILL_COUNT if tenant == victim() else 0
        require(restarts == expected, f"{tenant} has {restarts} restarts, not {expected}")


def kill_worker(home: Path, tenant: str) -> None:
    """SIGKILL a tenant's worker and wait until its successor is ready."""
    before = worker_of(home, tenant)
    killed_at = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)

    def has_successor() -> bool:
        worker = worker_of(home, tenant)
        return bool(worker["generation"] > before["generation"] and worker["state"] == "ready")

    wait_for(has_successor, RECOVERY_TIMEOUT_S, f"a successor of {tenant}'s worker")
    ready_after_s = time.monotonic() - killed_at
    after = worker_of(home, tenant)
    tell(
        f"killed pid {before['pid']}: successor pid {after['pid']} runs after {duration(after['recovery_s'])}, "
        f"is ready after {duration(ready_after_s)}"
    )
