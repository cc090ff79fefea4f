"""Checked load for `trtd demo`: threads that ask models in a closed loop and compare every answer with a known one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from trtd.client import Client
from trtd.errors import ErrorCode, TrtdError

ABSOLUTE = 1e-5
RELATIVE = 1e-4
"""Answers of a batch may differ from those of one item in the last digits."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request and its right answer.

    Attributes:
        model: which.
        inputs: of the request.
        output: which of the outputs is looked at.
        expected: what it has to be, as ONNX Runtime gave it.
        absolute: how far it may be from that; see `numpy.allclose`.
        relative: likewise.
    """

    model: str
    inputs: dict[str, np.ndarray]
    output: str
    expected: np.ndarray
    absolute: float = ABSOLUTE
    relative: float = RELATIVE

    def is_answered_by(self, output: object) -> bool:
        """Whether an output is the right one."""
        return (
            isinstance(output, np.ndarray)
            and output.shape == self.expected.shape
            and np.allclose(output, self.expected, rtol=self.relative, atol=self.absolute)
        )


@dataclass(slots=True)
class Tally:
    """What callers saw.

    Attributes:
        sent: requests.
        right: answers that were as expected.
        wrong: answers that were not.
        errors: typed errors, by code.
        slowest_s: longest time from a request to its answer.
        generations: lives of workers that answered.
    """

    sent: int = 0
    right: int = 0
    wrong: int = 0
    errors: Counter[ErrorCode] = field(default_factory=Counter)
    slowest_s: float = 0.0
    generations: set[int] = field(default_factory=set)

    def ask(self, client: Client, question: Question) -> None:
        """Send one request and judge its answer."""
        self.sent += 1
        began_at = time.perf_counter()
        try:
            answer = client.infer(question.model, question.inputs)
        except TrtdError as error:
            self.errors[error.code] += 1
            return
        self.slowest_s = max(self.slowest_s, time.perf_counter() - began_at)
        self.generations.add(answer.generation)
        if question.is_answered_by(answer.outputs.get(question.output)):
            self.right += 1
        else:
            self.wrong += 1

    def add(self, other: Tally) -> None:
        """Take in what another caller saw."""
        self.sent += other.sent
        self.right += other.right
        self.wrong += other.wrong
        self.errors += other.errors
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.generations |= other.generations

    @property
    def is_flawless(self) -> bool:
        """Whether every request was answered once, and rightly."""
        return 0 < self.sent == self.right


class Traffic:
    """Threads that ask without a pause, each one tenant, until stopped."""

    def __init__(self, tenants: list[tuple[str, Client, list[Question]]], thread_count: int) -> None:
        self.tallies = {tenant: Tally() for tenant, _, _ in tenants}
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._call, args=tenants[index % len(tenants)], name=f"caller-{index}")
            for index in range(thread_count)
        ]

    def _call(self, tenant: str, client: Client, questions: list[Question]) -> None:
        tally = Tally()
        while not self._stopping.is_set():
            tally.ask(client, questions[tally.sent % len(questions)])
        with self._lock:
            self.tallies[tenant].add(tally)

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
