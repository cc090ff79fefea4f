"""`trtd demo`: the daemon's main job on this very machine, with every figure printed and every answer checked.

Three tenants with models made on the spot, a worker killed under load, status, drain. Everything is in a temporary
directory and gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtd.cli import operator
from trtd.cli.picture import status_lines
from trtd.cli.terminal import has_colour
from trtd.cli.traffic import Question, Tally, Traffic
from trtd.cli.values import duration
from trtd.client import Client
from trtd.config.show import toml_value
from trtd.demo import models
from trtd.errors import ErrorCode, ExitCode, Internal, TrtdError
from trtd.wire import addresses

MODELS: dict[str, Callable[[], bytes]] = {"cnn": lambda: models.cnn(seed=1), "mlp": lambda: models.mlp(seed=2)}
TENANTS = {"vision": "cnn", "ranking": "mlp", "forecast": "mlp"}
"""Tenants and the model of each; the first one's worker is killed."""
INPUT_SHAPES = {"cnn": ("image", (1, 3, 32, 32)), "mlp": ("x", (1, 64))}

QUESTION_COUNT = 64
CALLER_COUNT = 8
KILL_COUNT = 3
START_TIMEOUT_S = 60.0
RECOVERY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.02


def demo(args: argparse.Namespace) -> int:
    """Run the whole of it.

    Raises:
        trtd.errors.Internal: something was not as it should be.
    """
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trtd-demo-") as directory, contextlib.ExitStack() as stack:
        home = Path(directory)
        say("1. Models with random weights, and a configuration with three tenants")
        questions = make_models(home)
        config = write_config(home)
        say(f"2. The daemon: trtd serve --config {config}")
        daemon = stack.enter_context(running_daemon(home, config))
        wait_until_ready(home, daemon)
        clients = {tenant: stack.enter_context(open_client(home, tenant)) for tenant in TENANTS}
        say("3. Requests, each answer compared with ONNX Runtime in this process")
        check_answers(clients, questions)
        say(f"4. {CALLER_COUNT} callers without a pause, and SIGKILL for the worker of {victim()}, {KILL_COUNT} times")
        kill_under_load(home, clients, questions, args.seconds)
        say("5. trtd status")
        for line in status_lines(status(home), colour=has_colour(sys.stdout)):
            tell(line)
        say("6. trtd drain --all")
        drain(home)
        stop(daemon)
    say(f"All is well, in {duration(time.monotonic() - began_at)}.")
    return ExitCode.OK


def exit_code(code: int, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """What was to be said has been said on the way."""
    return code


def say(heading: str) -> None:
    """A step begins."""
    print(heading, flush=True)


def tell(line: str) -> None:
    """What a step found."""
    print(f"   {line}", flush=True)


def require(is_so: bool, message: str) -> None:
    """End the demo when a promise is broken."""
    if not is_so:
        raise Internal(f"the demo found a broken promise: {message}")


def victim() -> str:
    """The tenant whose worker is killed."""
    return next(iter(TENANTS))


def runtime_dir(home: Path) -> str:
    """Where the demo's daemon has its sockets."""
    return str(home / "run")


def make_models(home: Path) -> dict[str, list[Question]]:
    """Write the models, and let ONNX Runtime answer questions for each tenant."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    rng = np.random.default_rng(0)
    questions: dict[str, list[Question]] = {}
    for name, make in MODELS.items():
        data = make()
        (home / f"{name}.onnx").write_bytes(data)
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
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


@contextlib.contextmanager
def running_daemon(home: Path, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as a subprocess, its log in a file; killed at the end if it still runs."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRTD_")}
    with (home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "trtd.cli.main", "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ,
        )  # fmt: skip
    try:
        yield daemon
    except TrtdError:
        tell("the end of the daemon's log:")
        for line in (home / "daemon.log").read_text(errors="replace").splitlines()[-20:]:
            tell(line)
        raise
    finally:
        if daemon.poll() is None:
            daemon.terminate()
            try:
                daemon.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def status(home: Path) -> dict[str, Any]:
    """The daemon's status record."""
    return operator.call(runtime_dir(home), "status", {})


def wait_until_ready(home: Path, daemon: subprocess.Popen[bytes]) -> None:
    """Wait until every tenant has a ready worker."""
    began_at = time.monotonic()

    def is_ready() -> bool:
        require(daemon.poll() is None, f"the daemon ended with exit code {daemon.returncode}")
        try:
            return bool(status(home)["health"] == "ready")
        except TrtdError as error:
            if error.code is not ErrorCode.UNREACHABLE:
                raise
            return False

    wait_for(is_ready, START_TIMEOUT_S, "all tenants ready")
    tell(f"{len(TENANTS)} tenants ready after {duration(time.monotonic() - began_at)}: {', '.join(TENANTS)}")


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Look again and again until something is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        require(time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}")
        time.sleep(LOOK_EVERY_S)


def open_client(home: Path, tenant: str) -> Client:
    """A client of one tenant."""
    return Client(addresses.tenant_address(runtime_dir(home), tenant))


def check_answers(clients: Mapping[str, Client], questions: Mapping[str, list[Question]]) -> None:
    """Ask each tenant all its questions, one by one."""
    for tenant, client in clients.items():
        tally = Tally()
        for question in questions[tenant]:
            tally.ask(client, question)
        report(tenant, tally)


def report(tenant: str, tally: Tally) -> None:
    """Tell what callers of a tenant saw, and end the demo unless it was flawless."""
    errors = ", ".join(f"{code} {count}" for code, count in tally.errors.items()) or "none"
    tell(
        f"{tenant}: {tally.sent} sent, {tally.right} right answers, {tally.wrong} wrong, errors {errors}, "
        f"slowest {duration(tally.slowest_s)}, by worker generation {', '.join(map(str, sorted(tally.generations)))}"
    )
    require(tally.is_flawless, f"{tenant} did not answer every request rightly")


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


def worker_of(home: Path, tenant: str) -> dict[str, Any]:
    """The status of a tenant's worker."""
    record = operator.call(runtime_dir(home), "status", {"tenant": tenant})
    worker: dict[str, Any] = record["tenants"][0]["workers"][0]
    return worker


def drain(home: Path) -> None:
    """Drain every tenant."""
    began_at = time.monotonic()
    answer = operator.call(runtime_dir(home), "drain", {"all": True})
    drained = [tenant for tenant, phase in answer["tenants"].items() if phase == "drained"]
    require(set(drained) == set(TENANTS), f"drained were only {', '.join(drained) or 'none'}")
    tell(f"{', '.join(drained)} drained in {duration(time.monotonic() - began_at)}")


def stop(daemon: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and the daemon leaves with exit code 0."""
    began_at = time.monotonic()
    daemon.terminate()
    try:
        code = daemon.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Internal(f"the daemon did not stop within {STOP_TIMEOUT_S:g} s") from None
    tell(f"daemon stopped in {duration(time.monotonic() - began_at)}, exit code {code}")
    require(code == ExitCode.OK, f"the daemon's exit code is {code}")
