"""What a worker says about one leased request: the result, or a typed error, as the frames that its client will get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtd.core.ids import LeaseId, RequestId
from trtd.errors import TrtdError
from trtd.runtime.protocol import Arrays
from trtd.wire.codec import encode_router_message, encode_worker_message
from trtd.wire.messages import (
    MAX_ENTRIES,
    ErrorAnswer,
    InferAnswer,
    ResultEntry,
    Results,
    TensorSpec,
    Timing,
)
from trtd.wire.tensors import to_frame
from trtd.worker.validate import ServedModel


@dataclass(slots=True)
class Job:
    """One admitted request, on its way through the worker.

    Attributes:
        lease: the router's number for it.
        id: the client's.
        model: what is to run.
        inputs: views on its frames.
        queue_us: how long it waited in the router.
    """

    lease: LeaseId
    id: RequestId
    model: ServedModel
    inputs: dict[str, np.ndarray]
    queue_us: int


@dataclass(slots=True)
class Answer:
    """One answer: `code` is None for a result. `frames` start with the header."""

    lease: LeaseId
    code: str | None
    frames: list[Any]


def result(job: Job, outputs: Arrays, generation: int, batch_us: int, compute_us: int) -> Answer:
    """The answer to a request that ran.

    Raises:
        trtd.errors.TrtdError: the outputs do not travel.
    """
    description = job.model.description
    specs = []
    frames: list[Any] = [b""]
    for contract in description.outputs:
        array = outputs[contract.name]
        specs.append(TensorSpec(contract.name, contract.dtype, array.shape))
        frames.append(to_frame(array))
    timing = Timing(job.queue_us, batch_us, compute_us)
    frames[0] = encode_router_message(
        InferAnswer(job.id, description.name, description.version, generation, tuple(specs), timing)
    )
    return Answer(job.lease, None, frames)


def refusal(lease: LeaseId, request: RequestId, error: TrtdError) -> Answer:
    """The answer to a request that was refused or failed."""
    header = encode_router_message(ErrorAnswer(request, error.code, error.message, error.retry_after_s))
    return Answer(lease, error.code, [header])


def messages(answers: Sequence[Answer], generation: int) -> list[list[Any]]:
    """Answers as few messages to the router, each a list of frames."""
    made = []
    for start in range(0, len(answers), MAX_ENTRIES):
        part = answers[start : start + MAX_ENTRIES]
        entries = tuple(ResultEntry(one.lease, len(one.frames), one.code) for one in part)
        frames: list[Any] = [encode_worker_message(Results(generation, entries))]
        for one in part:
            frames += one.frames
        made.append(frames)
    return made
