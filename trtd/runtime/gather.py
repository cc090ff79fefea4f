"""Several requests as one batch and back: inputs joined along the first dimension, outputs cut along it.

For runtimes that take a batch as one array per input. A single request passes untouched, without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtd.errors import ModelFailed
from trtd.runtime.protocol import Arrays


def join(requests: Sequence[Arrays]) -> Arrays:
    """The inputs of all requests as those of one batch; names, dtypes and all dimensions but the first agree."""
    if len(requests) == 1:
        return requests[0]
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def cut(outputs: Arrays, requests: Sequence[Arrays]) -> list[Arrays]:
    """The outputs of a batch as those of each of its requests: views, in the order of the requests.

    Raises:
        trtd.errors.ModelFailed: an output has not one item for each item of the inputs, so that nobody can tell whose
            is whose. A request that runs alone never sees this.
    """
    if len(requests) == 1:
        return [outputs]
    counts = [next(iter(request.values())).shape[0] for request in requests]
    total = sum(counts)
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise ModelFailed(f"output {name!r} has shape {list(array.shape)} for a batch of {total} items")
    answers: list[Arrays] = []
    start = 0
    for count in counts:
        end = start + count
        answers.append({name: array[start:end] for name, array in outputs.items()})
        start = end
    return answers
