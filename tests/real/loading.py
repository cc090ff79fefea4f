"""A worker's first steps alone, in a process of their own: whether a worker would serve each of many files."""

from __future__ import annotations

from dataclasses import dataclass

from tests.real.careful import serve_each
from tests.support.worker import make_model_settings, make_worker_settings
from trtd.core.faults import ProcessFault
from trtd.wire.messages import ModelDescription
from trtd.worker.load import load


@dataclass(frozen=True)
class Verdict:
    """What became of one model.

    Attributes:
        description: of one that would be served.
        reason: why another one would not.
        is_crash: whether that is what ended the process.
    """

    description: ModelDescription | None
    reason: str = ""
    is_crash: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether it was refused in so many words."""
        return self.description is None and not self.is_crash

    @property
    def batching(self) -> str:
        """Why its requests may be joined, or may not."""
        return "" if self.description is None else self.description.batching

    @property
    def is_batched(self) -> bool:
        """Whether its requests may be joined."""
        return self.description is not None and self.description.is_batched


def judge(path: str) -> Verdict:
    """Load it, warm it up."""
    model = make_model_settings(path, max_batch=32)
    try:
        loaded = load(make_worker_settings(model, runtime="onnxruntime", log_level="error"))
    except ProcessFault as error:
        return Verdict(None, error.fault.message)
    return Verdict(loaded.catalogue.models[0].description)


def main() -> None:
    """What `tests.real.careful.each` runs."""
    serve_each(judge)
