"""The steps that every demo takes, each told as it goes: a daemon, checked answers, status, drain, stop."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trtd.cli import operator
from trtd.cli.traffic import Question, Tally
from trtd.cli.values import duration
from trtd.client import Client
from trtd.errors import ErrorCode, ExitCode, Internal, TrtdError
from trtd.wire import addresses

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.02


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


def runtime_dir(home: Path) -> str:
    """Where the demo's daemon has its sockets."""
    return str(home / "run")


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


def wait_until_ready(home: Path, daemon: subprocess.Popen[bytes], tenants: Collection[str]) -> None:
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
    tell(f"{len(tenants)} tenants ready after {duration(time.monotonic() - began_at)}: {', '.join(tenants)}")


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


def worker_of(home: Path, tenant: str) -> dict[str, Any]:
    """The status of a tenant's worker."""
    record = operator.call(runtime_dir(home), "status", {"tenant": tenant})
    worker: dict[str, Any] = record["tenants"][0]["workers"][0]
    return worker


def drain(home: Path, tenants: Collection[str]) -> None:
    """Drain every tenant."""
    began_at = time.monotonic()
    answer = operator.call(runtime_dir(home), "drain", {"all": True})
    drained = [tenant for tenant, phase in answer["tenants"].items() if phase == "drained"]
    require(set(drained) == set(tenants), f"drained were only {', '.join(drained) or 'none'}")
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
