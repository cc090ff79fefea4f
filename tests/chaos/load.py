"""Callers that ask in a closed loop, check each answer and keep a history of all of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np

import trtd
from tests.bench.loads import lies_in_memfd
from tests.chaos.history import RIGHT, WRONG, History, Judgement, judge
from tests.support.daemon import PATIENCE_S, Daemon, wait_until
from trtd.cli.traffic import Question
from trtd.client.calls import SHARED_FROM_BYTES
from trtd.client.pending import PendingRequests
from trtd.errors import TrtdError

CALLERS_PER_TENANT = 3
TIMEOUT_S = 60.0
PAUSE_S = 0.002
ERROR_PAUSE_S = 0.01
KEPT_ANSWERS = 8
"""Large answers of which each caller holds on to, to see later that nobody has written over them."""
LOOKED_AT_EACH = 8
"""Of the large answers one in so many is looked at for whether it lies in shared memory."""
LEAST_SHARED = 0.2
"""Part of the large answers that has to come there in a run; after each death some come in frames."""


class Caller(threading.Thread):
    """One client connection, asked from one thread with a bounded number of requests under way.

    Large inputs are in turns ordinary arrays and arrays of the client's own. Large answers are judged twice: when they
    come, and once more when several others have come after them.

    Attributes:
        history: of its requests.
        should_stop: set it to have the thread end.
        failure: what it ended with.
        looked_at: large answers of which it was seen where they lie.
        in_shared_memory: how many of them do in shared memory.
    """

    def __init__(
        self, client: trtd.Client, history: History, questions: Sequence[Question], depth: int, pause_s: float
    ) -> None:
        super().__init__(name=f"caller of {history.tenant}")
        self.history = history
        self.should_stop = False
        self.failure: Exception | None = None
        self.looked_at = 0
        self.in_shared_memory = 0
        self._kept: deque[tuple[Question, Any]] = deque()
        self._client = client
        self._questions = questions
        self._depth = depth
        self._pause_s = pause_s

    def run(self) -> None:
        """Ask until told to stop. Anything but an answer or a typed error is a defect of the client."""
        try:
            self._ask()
        except Exception as error:
            self.failure = error

    def _ask(self) -> None:
        under_way: deque[tuple[int, Question, Any]] = deque()
        with self._client:
            while not self.should_stop:
                while len(under_way) < self._depth:
                    under_way.append(self._send())
                if not self._settle(*under_way.popleft()):
                    # Refused at once is asked again at once; that would be a flood.
                    time.sleep(ERROR_PAUSE_S)
                elif self._pause_s:
                    time.sleep(self._pause_s)
            while under_way:
                self._settle(*under_way.popleft())
        while self._kept:
            self._judge_again()

    def _send(self) -> tuple[int, Question, Any]:
        question = self._questions[len(self.history) % len(self._questions)]
        inputs = question.inputs
        if len(self.history) // len(self._questions) % 2:
            inputs = {name: self._own(array) for name, array in inputs.items()}
        at = time.monotonic()
        handle = self._client.submit(question.model, inputs, timeout=self.history.timeout_s)
        return self.history.sent(handle.id, at), question, handle

    def _own(self, array: np.ndarray) -> np.ndarray:
        """The same in an array of the client's, where it is large."""
        if array.nbytes < SHARED_FROM_BYTES:
            return array
        own = self._client.empty(array.shape, array.dtype)
        np.copyto(own, array)
        return own

    def _settle(self, number: int, question: Question, handle: Any) -> bool:
        try:
            answer = handle.result()
        except TrtdError as error:
            self.history.ended(number, time.monotonic(), error.code)
            return False
        output = answer.outputs.get(question.output)
        outcome = RIGHT if question.is_answered_by(output) else WRONG
        if isinstance(output, np.ndarray) and output.nbytes >= SHARED_FROM_BYTES:
            if number % LOOKED_AT_EACH == 0:
                self.looked_at += 1
                self.in_shared_memory += lies_in_memfd(output)
            self._kept.append((question, output))
            if len(self._kept) > KEPT_ANSWERS:
                self._judge_again()
        # The client's own measure: answers that came while an earlier one was waited for are not late.
        self.history.ended(number, self.history.sent_at[number] + answer.timing.total_s, outcome, answer.generation)
        return True

    def _judge_again(self) -> None:
        question, output = self._kept.popleft()
        if not question.is_answered_by(output):
            raise AssertionError("an answer that was held has changed")


class Load:
    """Callers of several tenants; the last one of each tenant keeps four requests under way, the others one."""

    def __init__(
        self,
        daemon: Daemon,
        questions: Mapping[str, Sequence[Question]],
        *,
        callers: int = CALLERS_PER_TENANT,
        pause_s: float = PAUSE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.callers = {
            tenant: [
                Caller(
                    daemon.client(tenant),
                    History(tenant, timeout_s),
                    asked,
                    4 if number and number == callers - 1 else 1,
                    pause_s,
                )
                for number in range(callers)
            ]
            for tenant, asked in questions.items()
        }

    @property
    def histories(self) -> list[History]:
        """Of all callers."""
        return [caller.history for callers in self.callers.values() for caller in callers]

    def histories_of(self, tenant: str) -> list[History]:
        """Of the callers of one tenant."""
        return [caller.history for caller in self.callers[tenant]]

    def failures(self) -> list[str]:
        """Callers that ended by an exception, in words: nothing more comes from them."""
        return [
            f"a {caller.name} ended with {caller.failure!r}"
            for callers in self.callers.values()
            for caller in callers
            if caller.failure is not None
        ]

    def judge(self) -> Judgement:
        """What came of it; to be asked when it is over."""
        judgement = judge(self.histories)
        judgement.failures = self.failures()
        return judgement

    def sharing(self) -> dict[str, Any]:
        """For the report: how many large answers were seen in shared memory; nothing where none were large."""
        callers = [caller for group in self.callers.values() for caller in group]
        looked_at = sum(caller.looked_at for caller in callers)
        shared = sum(caller.in_shared_memory for caller in callers)
        return {"answers_in_shared_memory": {"seen": shared, "of": looked_at}} if looked_at else {}

    def sharing_problems(self) -> list[str]:
        """That most of the large answers came in frames, where it is so: then the run has not shown what it is for."""
        return [
            f"only {counts['seen']} of {counts['of']} large answers came in shared memory"
            for counts in self.sharing().values()
            if counts["seen"] < LEAST_SHARED * counts["of"]
        ]

    def wait_answered(self, tenants: Iterable[str], since: float, generation: int = 0, what: str = "") -> None:
        """Wait until each caller of the tenants has a right answer later than an instant, of at least a generation."""
        histories = [history for tenant in tenants for history in self.histories_of(tenant)]
        waiting = set(range(len(histories)))

        def is_answered() -> bool:
            for number in list(waiting):
                if histories[number].first_right_after(since, generation) is not None:
                    waiting.discard(number)
            return not waiting

        self._wait(is_answered, what or f"right answers for each caller of {', '.join(tenants)}", TIMEOUT_S)

    def wait_more(self, tenant: str, count: int) -> None:
        """Wait until the callers of a tenant sent some more requests: a moment that no clock decides."""
        histories = self.histories_of(tenant)
        goal = sum(map(len, histories)) + count
        self._wait(lambda: sum(map(len, histories)) >= goal, f"{count} more requests to {tenant}")

    def _wait(self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait, but not for callers that have ended by an exception."""

        def is_true() -> bool:
            for failure in self.failures():
                raise AssertionError(failure)
            return condition()

        wait_until(is_true, what, patience_s)

    def stop(self) -> None:
        """Let all requests under way end, and the callers with them."""
        callers = [caller for group in self.callers.values() for caller in group]
        for caller in callers:
            caller.should_stop = True
        for caller in callers:
            if caller.ident is not None:
                caller.join()

    def __enter__(self) -> Self:
        for callers in self.callers.values():
            for caller in callers:
                caller.start()
        try:
            self.wait_answered(list(self.callers), 0.0)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def second_answers() -> Iterator[Callable[[], int]]:
    """How many answers came in this process that no request waited for: what the client drops, and nobody sees."""
    answered = PendingRequests.answered
    count = 0

    def counting(self: PendingRequests, request_id: Any) -> Any:
        nonlocal count
        request = answered(self, request_id)
        count += request is None
        return request

    PendingRequests.answered = counting  # type: ignore[method-assign]
    try:
        yield lambda: count
    finally:
        PendingRequests.answered = answered  # type: ignore[method-assign]
