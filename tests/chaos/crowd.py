"""Callers of one process that share a client, as the threads or the tasks of a server do, and wait for their answers.

They count how their requests end. Callers with a client each, and a history of each request, are in `tests.chaos.load`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import trtd
from tests.chaos.history import RIGHT, WRONG
from tests.chaos.load import ERROR_PAUSE_S, TIMEOUT_S
from trtd.cli.traffic import Question
from trtd.client import aio
from trtd.errors import TrtdError

CALLERS = 8

Outcomes = Counter[str]
"""How many requests ended in which way: `RIGHT`, `WRONG`, or the code of an error."""
IsOver = Callable[[], bool]


def outcome_of(answer: Any, question: Question) -> str:
    """How one request ended, by its answer or its error."""
    if isinstance(answer, TrtdError):
        return answer.code
    return RIGHT if question.is_answered_by(answer.outputs.get(question.output)) else WRONG


def until(is_over: IsOver, questions: Sequence[Question]) -> Iterator[Question]:
    """The questions again and again, until it is over."""
    for question in itertools.cycle(questions):
        if is_over():
            return
        yield question


def ask_in_threads(
    address: str, questions: Sequence[Question], is_over: IsOver, outcomes: Outcomes, pause_s: float = 0.0
) -> None:
    """Threads that share a client ask, each in a closed loop, until it is over."""

    def ask(client: trtd.Client) -> Outcomes:
        counted: Outcomes = Counter()
        for question in until(is_over, questions):
            try:
                answer: Any = client.infer(question.model, question.inputs)
            except TrtdError as error:
                answer = error
            counted[outcome := outcome_of(answer, question)] += 1
            if pause := pause_s if outcome == RIGHT else ERROR_PAUSE_S:
                time.sleep(pause)
        return counted

    with trtd.Client(address, timeout=TIMEOUT_S) as client, ThreadPoolExecutor(CALLERS) as pool:
        for counted in pool.map(ask, [client] * CALLERS):
            outcomes.update(counted)


def ask_in_tasks(
    address: str, questions: Sequence[Question], is_over: IsOver, outcomes: Outcomes, pause_s: float = 0.0
) -> None:
    """Tasks that share a client ask, each in a closed loop, until it is over."""

    async def ask(client: aio.Client) -> None:
        for question in until(is_over, questions):
            try:
                answer: Any = await client.infer(question.model, question.inputs)
            except TrtdError as error:
                answer = error
            outcomes[outcome := outcome_of(answer, question)] += 1
            if pause := pause_s if outcome == RIGHT else ERROR_PAUSE_S:
                await asyncio.sleep(pause)

    async def ask_all() -> None:
        async with aio.Client(address, timeout=TIMEOUT_S) as client:
            await asyncio.gather(*[ask(client) for _ in range(CALLERS)])

    asyncio.run(ask_all())


class Crowd:
    """Threads and tasks of this process that ask one tenant while something is done to it.

    Attributes:
        outcomes: by `threads` and `tasks`; complete once it is over.
        failures: what else but an answer or a typed error they ended with, in words.
    """

    def __init__(self, address: str, questions: Sequence[Question], pause_s: float) -> None:
        self.outcomes: dict[str, Outcomes] = {"threads": Counter(), "tasks": Counter()}
        self.failures: list[str] = []
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(kind, ask, address, questions, pause_s))
            for kind, ask in (("threads", ask_in_threads), ("tasks", ask_in_tasks))
        ]

    def _watch(
        self, kind: str, ask: Callable[..., None], address: str, questions: Sequence[Question], pause_s: float
    ) -> None:
        try:
            ask(address, questions, self._is_over.is_set, self.outcomes[kind], pause_s)
        except Exception as error:
            self.failures.append(f"the {kind} that share a client ended with {error!r}")

    def figures(self) -> dict[str, int]:
        """For the report."""
        return {f"right_{kind}_of_one_client": outcomes[RIGHT] for kind, outcomes in self.outcomes.items()}

    def broken(self) -> list[str]:
        """What is wrong with how their requests ended."""
        return self.failures + broken_of(self.outcomes)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask for as long as this lasts; all requests have ended afterwards."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()


def broken_of(outcomes: dict[str, Outcomes]) -> list[str]:
    """Requests that had no right answer, and kinds of callers that had none at all."""
    broken = [
        f"{count} requests ({kind}) ended as {name}"
        for kind, each in outcomes.items()
        for name, count in each.items()
        if name != RIGHT
    ]
    return broken + [f"no request ({kind}) was answered" for kind, each in outcomes.items() if not each[RIGHT]]
