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
    """What became of one model: its description, or the reason why it is not served."""

    description: ModelDescription | None
    reason: str = ""

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
