"""What the proofs under a real systemd share: configurations, callers inside the machine, and how a proof speaks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.daemon import tenant, wait_until
from tests.systemd.machine import PATIENCE_S, SERVICE, Machine

PYTHON = ("/usr/bin/env", "PYTHONPATH=/opt/trtd:/opt/site", "PYTHONDONTWRITEBYTECODE=1", "/opt/python/bin/python3")
QUICK = {"restart": {"base_s": 0.01, "cap_s": 0.1}}

Evidence = Iterator[str]
"""A proof gives the lines that it saw, and fails with AssertionError when something else came."""


class NotShown(Exception):
    """This host lacks what a proof needs; the text says what."""


class Caller:
    """A closed loop of requests inside the machine."""

    def __init__(self, machine: Machine, tenant_name: str) -> None:
        self._process = subprocess.Popen(
            machine.argv(*PYTHON, "-m", "tests.systemd.caller", tenant_name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def end(self) -> dict[str, int]:
        """How many answers of each kind came."""
        output, _ = self._process.communicate(timeout=PATIENCE_S)
        counts: dict[str, int] = json.loads(output)
        return counts

    def kill(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def calling(machine: Machine, *tenants: str) -> Iterator[list[Caller]]:
    """Callers of these tenants, which have had their first answers."""
    callers = [Caller(machine, name) for name in tenants]
    try:
        for name in tenants:
            wait_until(
                lambda name=name: counters(machine, name).get("answered", 0) > 20, f"answers of {name}", PATIENCE_S
            )
        yield callers
    finally:
        for caller in callers:
            caller.kill()


def wait_for_answers(machine: Machine, name: str, count: int = 20) -> None:
    """Wait until the daemon has answered so many requests more of a tenant."""
    before = counters(machine, name).get("answered", 0)
    wait_until(
        lambda: counters(machine, name).get("answered", 0) >= before + count, f"{count} answers of {name}", PATIENCE_S
    )


def counters(machine: Machine, name: str) -> dict[str, int]:
    """The daemon's own count for a tenant."""
    for entry in machine.status()["tenants"]:
        if entry["name"] == name:
            return dict(entry["counters"])
    return {}


def expect(condition: object, what: str) -> None:
    """Fail with a sentence when something is not as it should be."""
    if not condition:
        raise AssertionError(what)


def two_tenants(machine: Machine, **sections: Any) -> None:
    """The configuration that most proofs use."""
    machine.configure({"a": tenant(**QUICK), "b": tenant(**QUICK)}, **sections)


def fresh(machine: Machine, **sections: Any) -> int:
    """The service started anew with that configuration; its main pid."""
    machine.systemctl("stop", SERVICE)
    two_tenants(machine, **sections)
    machine.systemctl("start", SERVICE)
    machine.mark()
    return machine.main_pid()


def say(entry: dict[str, Any]) -> str:
    """An event as one short line."""
    left_out = {"at", "level", "event", "replica"}
    fields = " ".join(f"{name}={value}" for name, value in entry.items() if name not in left_out and value is not None)
    return f"journal: {entry['event']} {fields}"
