"""The judge of `trtd demo`: nothing but the right answer to every request is flawless."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from trtd.cli import demo_steps
from trtd.cli.traffic import Question, Tally, Traffic
from trtd.client import Answer, Client
from trtd.errors import ErrorCode, Internal, WorkerLost

QUESTION = Question("m", {}, "y", np.array([1.0, 2.0], dtype=np.float32))


class ScriptedClient:
    """Answers with what it was given, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    def infer(self, model: str, inputs: Any) -> Answer:
        answer = self.answers[self.asked % len(self.answers)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        told = SimpleNamespace(outputs={"y": np.array(answer, dtype=np.float32)}, generation=self.asked)
        return cast("Answer", told)


def ask(*answers: Any) -> Tally:
    client, tally = cast("Client", ScriptedClient(*answers)), Tally()
    for _ in answers:
        tally.ask(client, QUESTION)
    return tally


def test_right_answers():
    """Answers that agree up to the last digits are right, and the lives of the workers are noted."""
    tally = ask([1.0, 2.0], [1.000001, 2.0])
    assert (tally.sent, tally.right, tally.wrong, tally.generations) == (2, 2, 0, {1, 2})
    assert tally.is_flawless


@pytest.mark.parametrize("answer", [[1.0, 2.1], [1.0], [[1.0, 2.0]], [float("nan"), 2.0], WorkerLost("gone")])
def test_anything_else_is_a_flaw(answer):
    """Another value, another shape or an error among right answers is seen, and ends the demo."""
    tally = ask([1.0, 2.0], answer)
    assert not tally.is_flawless
    assert (tally.right, tally.wrong + tally.errors.total()) == (1, 1)
    with pytest.raises(Internal, match="did not answer every request rightly"):
        demo_steps.report("a", tally)


def test_no_request_is_no_success():
    """A caller that never got to ask proves nothing."""
    assert not Tally().is_flawless


def test_traffic_adds_up():
    """What all threads saw is counted for their tenants, none lost."""
    clients = {name: ScriptedClient([1.0, 2.0], WorkerLost("gone")) for name in ("a", "b")}
    tenants = [(name, cast("Client", client), [QUESTION]) for name, client in clients.items()]
    with Traffic(tenants, 4) as traffic:
        while not all(client.asked > 10 for client in clients.values()):
            pass
    for name, client in clients.items():
        tally = traffic.tallies[name]
        assert tally.sent == client.asked
        assert tally.right + tally.errors[ErrorCode.WORKER_LOST] == tally.sent
