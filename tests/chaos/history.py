"""What callers sent and what came back, request by request, and the promises that must hold of all of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from trtd.client.pending import GRACE_S
from trtd.errors import ErrorCode

OPEN, RIGHT, WRONG = "open", "right", "wrong"
OUTCOMES = (OPEN, RIGHT, WRONG, *ErrorCode)
"""How a request can stand: no answer yet, the right one, another one, or a typed error."""
SLACK_S = 1.0
"""For the caller itself, which shares its processor with the daemon: from the end of a request to its noting."""


class History:
    """The requests of one caller, in the order of sending; some 40 bytes each, so that millions can be kept."""

    def __init__(self, tenant: str, timeout_s: float) -> None:
        self.tenant = tenant
        self.timeout_s = timeout_s
        self.ids: list[bytes] = []
        self.sent_at = array("d")
        self.answered_at = array("d")
        self.answer_counts = array("B")
        self.generations = array("L")
        self._outcomes = array("B")

    def __len__(self) -> int:
        return len(self.sent_at)

    def sent(self, request_id: bytes, at: float) -> int:
        """A request goes out; its number here."""
        self.ids.append(request_id)
        self.answered_at.append(0.0)
        self.answer_counts.append(0)
        self.generations.append(0)
        self._outcomes.append(0)
        self.sent_at.append(at)
        return len(self.sent_at) - 1

    def ended(self, number: int, at: float, outcome: str, generation: int = 0) -> None:
        """A request ended; `generation` is that of the worker that answered."""
        self.generations[number] = generation
        self._outcomes[number] = OUTCOMES.index(outcome)
        self.answer_counts[number] += 1
        self.answered_at[number] = at

    def outcome(self, number: int) -> str:
        """How a request stands."""
        return OUTCOMES[self._outcomes[number]]

    def newest_first(self, since: float) -> Iterator[int]:
        """Ended requests, the last sent first, back to the first that had ended before this instant."""
        for number in range(len(self) - 1, -1, -1):
            if not self.answer_counts[number]:
                continue
            if self.answered_at[number] < since:
                return
            yield number

    def first_right_after(self, at: float, generation: int = 0) -> float | None:
        """When the first right answer after an instant came, from this generation of workers or a later one."""
        found = None
        for number in self.newest_first(at):
            if self.outcome(number) == RIGHT and self.generations[number] >= generation:
                found = self.answered_at[number]
        return found

    def ends_sent_after(self, at: float) -> int:
        """How many requests that were sent after an instant have ended."""
        return sum(self.sent_at[number] > at for number in self.newest_first(at))


@dataclass(slots=True)
class Judgement:
    """What the histories of a run amount to.

    Attributes:
        sent: requests.
        outcomes: how many ended in which way.
        unanswered: requests without an end.
        answered_twice: requests with more than one.
        late: requests that ended after their deadline and the grace that a client gives the daemon.
        slowest_s: longest time from sending to a right answer.
        failures: callers that ended with an exception, in words.
    """

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    answered_twice: int = 0
    late: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def broken(self, allowed: Iterable[str] = ()) -> list[str]:
        """The promises that were not kept, given the typed errors that this run may cause."""
        lines = list(self.failures)
        if not self.sent:
            lines.append("no request was sent")
        for count, what in (
            (self.unanswered, "never answered"),
            (self.answered_twice, "answered twice"),
            (self.late, "answered after deadline and grace"),
        ):
            if count:
                lines.append(f"{count} requests {what}")
        fine = {RIGHT, OPEN, *allowed}
        lines += [f"{count} requests ended as {name}" for name, count in self.outcomes.items() if name not in fine]
        return lines

    def figures(self) -> dict[str, Any]:
        """For the report."""
        errors = {name: count for name, count in self.outcomes.items() if name not in {RIGHT, WRONG, OPEN}}
        return {
            "requests": self.sent,
            "right": self.outcomes[RIGHT],
            "wrong": self.outcomes[WRONG],
            "errors": errors,
            "unanswered": self.unanswered,
            "answered_twice": self.answered_twice,
            "late": self.late,
            "slowest_s": round(self.slowest_s, 3),
        }


def judge(histories: Iterable[History]) -> Judgement:
    """Look at every request of a run that is over."""
    judgement = Judgement()
    for history in histories:
        limit_s = history.timeout_s + GRACE_S + SLACK_S
        for number in range(len(history)):
            judgement.sent += 1
            outcome = history.outcome(number)
            judgement.outcomes[outcome] += 1
            count = history.answer_counts[number]
            if not count:
                judgement.unanswered += 1
                continue
            judgement.answered_twice += count > 1
            took_s = history.answered_at[number] - history.sent_at[number]
            judgement.late += took_s > limit_s
            if outcome == RIGHT:
                judgement.slowest_s = max(judgement.slowest_s, took_s)
    return judgement
