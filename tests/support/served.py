"""Models as a worker compares requests with them, from their descriptions alone, and requests for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.batches import Results, decode_worker_message
from tests.support.worker import make_model_settings
from trtd.core.ids import LeaseId, RequestId
from trtd.errors import ErrorCode
from trtd.runtime.inputs import Inputs
from trtd.runtime.protocol import Shapes
from trtd.wire.messages import Dtype, ModelDescription, TensorContract
from trtd.worker.answers import Answers, Job
from trtd.worker.plans import Plan
from trtd.worker.validate import ServedModel


class Described:
    """A model that is only its description."""

    def __init__(
        self, description: ModelDescription, copies_inputs: bool, most: Callable[[Shapes], int | None]
    ) -> None:
        self.description = description
        self.copies_inputs = copies_inputs
        self.most_items = most

    def never_join(self) -> None:
        """There is nothing to add anything to."""


def make_served(
    *inputs: TensorContract,
    name: str = "m",
    version: str = "1",
    is_batched: bool = True,
    max_batch: int = 8,
    copies_inputs: bool = False,
    most: Callable[[Shapes], int | None] = lambda _: None,
) -> ServedModel:
    """A served model; by default `x` float32 [N, 4] in batches of up to 8."""
    contracts = inputs or (TensorContract("x", Dtype.FLOAT32, (None, 4)),)
    description = ModelDescription(name, version, contracts, contracts, is_batched, max_batch if is_batched else 0)
    model: Any = Described(description, copies_inputs, most)
    return ServedModel(model, make_model_settings("m", name=name, version=version, max_batch=max_batch))


@dataclass(frozen=True)
class Answer:
    """One answer as the router gets it."""

    lease: int
    code: ErrorCode | None
    frames: list[Any]


def read_answers(answers: Answers) -> list[Answer]:
    """All that is on its way to the router, in order; it is taken out."""
    read = []
    for header, *frames in answers.take(1):
        message = decode_worker_message(header)
        assert isinstance(message, Results)
        for entry in message.entries:
            read.append(Answer(entry.lease, entry.code, frames[: entry.frame_count]))
            del frames[: entry.frame_count]
        assert not frames
    return read


def make_job(plan: Plan, inputs: Inputs, number: int = 1, queue_us: int = 0) -> Job:
    """A request that has just arrived and has time, with its number as lease and id."""
    request_id = RequestId(number.to_bytes(16, "big"))
    now = time.monotonic()
    limits = plan.limits
    return Job(plan.group, plan.items, now, now + 30, limits, LeaseId(number), request_id, plan.model, inputs, queue_us)
