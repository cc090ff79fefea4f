"""A real daemon with many models, and what it answers to their questions, all of one model's at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.real.cases import Case, Tensors
from tests.support.daemon import Daemon
from trtd.errors import TrtdError

MODELS_PER_DAEMON = 200
TIMEOUT_S = 60.0
READY_S = 300.0

Outcome = list[Tensors | TrtdError]


class Served:
    """What came of the questions of one model.

    Attributes:
        outcomes: one for each question.
        joined: how many of these ran together with others.
    """

    def __init__(self, outcomes: Outcome, joined: int) -> None:
        self.outcomes = outcomes
        self.joined = joined


def serve(cases: Sequence[Case], **model: Any) -> dict[str, Served]:
    """Serve the cases, a few daemons after the other, and ask all questions.

    Args:
        cases: models that a worker would serve.
        model: further settings of each.
    """
    served: dict[str, Served] = {}
    for start in range(0, len(cases), MODELS_PER_DAEMON):
        served |= _serve(cases[start : start + MODELS_PER_DAEMON], model)
    return served


def _serve(cases: Sequence[Case], more: Mapping[str, Any]) -> dict[str, Served]:
    models = {f"m{number}": {"path": case.path, **more} for number, case in enumerate(cases)}
    tenant = {"models": models, "health": {"warmup_s": READY_S}, "allow_users": ["*"]}
    with Daemon({"a": tenant}, log={"level": "warning"}) as daemon:
        daemon.start()
        daemon.wait_listening()
        status = daemon.wait_status(_is_settled, "a worker that serves or will not", READY_S)
        if not status["tenants"][0]["is_available"] and len(cases) > 1:
            # One of them keeps all from serving: it is found by halves.
            half = len(cases) // 2
            return _serve(cases[:half], more) | _serve(cases[half:], more)
        with daemon.client(timeout=TIMEOUT_S) as client:
            return {case.name: _ask(client, f"m{number}", case.questions) for number, case in enumerate(cases)}


def _is_settled(status: Mapping[str, Any]) -> bool:
    (tenant,) = status["tenants"]
    return bool(tenant["is_ready"] or not tenant["is_available"])


def _ask(client: Any, model: str, questions: Sequence[Tensors]) -> Served:
    outcomes: Outcome = []
    runs = []
    handles = [_submit(client, model, question) for question in questions]
    for handle in handles:
        try:
            if isinstance(handle, TrtdError):
                raise handle
            answer = handle.result()
            # What ran together took equally long, to the microsecond.
            runs.append(answer.timing.compute_s)
            outcomes.append({name: _own(tensor) for name, tensor in answer.outputs.items()})
        except TrtdError as error:
            outcomes.append(error)
    return Served(outcomes, sum(runs.count(run) > 1 for run in runs))


def _submit(client: Any, model: str, question: Tensors) -> Any:
    try:
        return client.submit(model, question)
    except TrtdError as error:
        return error


def _own(tensor: Any) -> Any:
    # Nothing here may keep a whole message for one small output.
    return tensor.copy() if hasattr(tensor, "copy") else tensor
