"""The daemon with three tenants and real models, questions with known answers for each, and its log as it grows."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.support.daemon import PATIENCE_S, Daemon, wait_until
from trtd.cli.traffic import Question
from trtd.demo import models
from trtd.runtime.ort import ort

QUESTIONS_PER_TENANT = 64
LARGE_QUESTIONS_PER_TENANT = 8
RESTART_AT_ONCE = {"base_s": 0.001, "cap_s": 0.01, "healthy_after_s": 0.001, "budget": 1_000_000}
"""Restart settings under which any number of kills is followed by a restart without delay."""

PATIENT = {"beat_s": 5.0}
"""Health settings of whoever is not meant to hang: on a machine with far more to do than processors, Python may be
silent for the default second, and be replaced for it; that would be noise in a proof about something else."""

MODELS: dict[str, tuple[str, tuple[int, ...], Callable[[], bytes]]] = {
    "vision": ("image", (1, 3, 32, 32), lambda: models.cnn(seed=1)),
    "ranking": ("x", (1, 64), lambda: models.mlp(seed=2)),
    "forecast": ("x", (1, 64), lambda: models.mlp(seed=3)),
}
"""Tenants with the input of their model; two differ in their weights only, so that a swapped answer is a wrong one."""

LARGE_MODELS: dict[str, tuple[str, tuple[int, ...], Callable[[], bytes]]] = {
    "vision": ("x", (1, 65_536), lambda: models.scaled(seed=1, features=65_536)),
    "ranking": ("x", (1, 40_960), lambda: models.scaled(seed=2, features=40_960)),
    "forecast": ("x", (1, 40_960), lambda: models.scaled(seed=3, features=40_960)),
}
"""The same tenants with inputs and outputs that travel through shared memory."""


def make_question(session: Any, model: str, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Question:
    """A random input, and what ONNX Runtime answers to it in this process."""
    inputs = {name: rng.standard_normal(shape, dtype=np.float32)}
    output = session.get_outputs()[0].name
    return Question(model, inputs, output, session.run([output], inputs)[0])


def make_questions(directory: Path, *, is_large: bool) -> dict[str, list[Question]]:
    """Write the models as `TENANT.onnx`, and make questions for each tenant."""
    count = LARGE_QUESTIONS_PER_TENANT if is_large else QUESTIONS_PER_TENANT
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    questions = {}
    for tenant, (name, shape, make) in (LARGE_MODELS if is_large else MODELS).items():
        data = make()
        (directory / f"{tenant}.onnx").write_bytes(data)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        questions[tenant] = [make_question(session, "model", name, shape, rng) for _ in range(count)]
    return questions


def tenant_tables(directory: Path, **settings: Any) -> dict[str, Any]:
    """The configuration of the three tenants."""
    return {
        tenant: {
            "models": {"model": {"path": str(directory / f"{tenant}.onnx")}},
            "restart": RESTART_AT_ONCE,
            "health": PATIENT,
            **settings,
        }
        for tenant in MODELS
    }


class Log:
    """The daemon's log, read on from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self.lines: list[dict[str, Any]] = []

    def read(self) -> None:
        """Take in what was written since."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))

    def find(self, event: str, start: int = 0, **fields: Any) -> dict[str, Any] | None:
        """The first line of this event with these fields, among those from a given number on."""
        self.read()
        for line in self.lines[start:]:
            if line["event"] == event and fields.items() <= line.items():
                return line
        return None

    def wait(self, event: str, start: int = 0, patience_s: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
        """As `find`, once it is there."""
        line: dict[str, Any] = wait_until(
            lambda: self.find(event, start, **fields), f"log event {event} {fields}", patience_s
        )
        return line

    def all(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """All lines of this event with these fields."""
        self.read()
        return [line for line in self.lines if line["event"] == event and fields.items() <= line.items()]


def instant_of(line: Mapping[str, Any]) -> float:
    """The monotonic instant of a log line; it moves with the wall clock, which must not be set during a run."""
    return datetime.fromisoformat(line["at"]).timestamp() - time.time() + time.monotonic()


class Observed(Daemon):
    """A daemon whose log is read as it grows.

    Attributes:
        log: of the daemon.
    """

    def __init__(self, tenants: Mapping[str, Any], **sections: Any) -> None:
        super().__init__(tenants, **sections)
        self.log_file.touch()
        self.log = Log(self.log_file)

    def configure(self, tenants: Mapping[str, Any], **sections: Any) -> None:
        """As the daemon's own; the router is given the same patience and the same restarts as the tenants."""
        super().configure(tenants, **{"router": {"health": PATIENT, "restart": RESTART_AT_ONCE}, **sections})

    def generations(self) -> dict[str, int]:
        """Of each tenant's worker."""
        return {entry["name"]: entry["workers"][0]["generation"] for entry in self.status()["tenants"]}

    def pids(self) -> dict[str, int]:
        """Of each tenant's worker."""
        return {entry["name"]: entry["workers"][0]["pid"] for entry in self.status()["tenants"]}

    def account_problems(self) -> list[str]:
        """Tenants whose counters do not add up, in words."""
        problems = []
        for entry in self.status()["tenants"]:
            counters = entry["counters"]
            ended = counters["answered"] + counters["failed"] + counters["abandoned"]
            if counters["accepted"] != ended + entry["queued"] + entry["leased"]:
                problems.append(f"the counters of {entry['name']} do not add up: {counters}")
        return problems

    def run(self, ready_s: float = 60.0) -> Iterator[Self]:
        """Start it, give it when it is ready, and keep its log where that is asked for."""
        try:
            self.start()
            self.wait_ready(ready_s)
            yield self
        finally:
            if keep_logs_in is not None:
                shutil.copy(self.log_file, keep_logs_in / f"{self.directory.name}.log")


class Stage(Observed):
    """The daemon of a proof without a GPU.

    Attributes:
        questions: with known answers, by tenant.
        models: directory of the models.
    """

    def __init__(
        self,
        models_directory: Path,
        others: Mapping[str, Any],
        sections: Mapping[str, Any],
        *,
        is_large: bool,
        **settings: Any,
    ) -> None:
        self.models = models_directory
        self.questions = make_questions(models_directory, is_large=is_large)
        self.settings = settings
        self.tables = tenant_tables(models_directory, **settings)
        super().__init__({**self.tables, **others}, **sections)


keep_logs_in: Path | None = None
"""Where the daemon's log of each proof is copied to, for whoever has to find out why a promise was broken."""


@contextmanager
def stage(
    others: Mapping[str, Any] | None = None,
    *,
    router: Mapping[str, Any] | None = None,
    is_large: bool = False,
    ready_s: float = 60.0,
    **settings: Any,
) -> Iterator[Stage]:
    """A daemon that is ready, with the three tenants and others.

    Args:
        others: tables of further tenants, by name.
        router: the router's section; patient and restarted at once where it is not given.
        is_large: whether the three have tensors that are large enough for shared memory.
        ready_s: patience with the start.
        settings: of each of the three.
    """
    with (
        tempfile.TemporaryDirectory(prefix="trtd-models-") as directory,
        Stage(
            Path(directory), others or {}, {} if router is None else {"router": router}, is_large=is_large, **settings
        ) as daemon,
    ):
        yield from daemon.run(ready_s)
