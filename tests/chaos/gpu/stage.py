"""A daemon that serves real plans, and questions whose answers are known from the references."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.stage import PATIENT, RESTART_AT_ONCE, Observed
from trtd.cli.traffic import Question
from trtd.demo import plans
from trtd.errors import Usage

OUTPUTS = {
    "mlp": "y",
    "mlp_two_profiles": "y",
    "squeezenet_fp16": "logits",
    "encoder_fp16": "hidden",
    "two_io": "t",
    "nonzero": "where",
}
"""The output of each model that is looked at."""


def assets() -> Path:
    """The directory with plans and references."""
    named = os.environ.get("TRTD_GPU_ASSETS", "")
    if not named:
        raise Usage("TRTD_GPU_ASSETS names no directory with plans/ and references/")
    plans.check_directory(Path(named))
    return Path(named)


def model_of(plan: str) -> str:
    """The model's name, from that of a plan: `mlp.plain`."""
    return plan.partition(".")[0]


def questions_for(plan: str) -> list[Question]:
    """One question for each case of a plan's reference."""
    model = model_of(plan)
    made = []
    for case in plans.CASES:
        inputs, outputs = plans.read_reference(assets() / "references" / f"{model}.ref.npz", case)
        output = OUTPUTS[model]
        made.append(Question(model, inputs, output, outputs[output], plans.allowed_difference(model), 0.0))
    return made


def gpu_tenant(path: Path, **settings: Any) -> dict[str, Any]:
    """A tenant that serves one plan."""
    model = {"path": str(path), "max_batch": 32}
    defaults = {"restart": RESTART_AT_ONCE, "health": PATIENT}
    return {"runtime": "tensorrt", "models": {model_of(path.name): model}, **defaults, **settings}


class GpuStage(Observed):
    """The daemon of a proof.

    Attributes:
        place: directory of the plans.
        tenants: configuration of those that are there from the start.
        questions: with known answers, by tenant.
    """

    def __init__(self, place: Path, serving: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        self.place = place
        paths = {plan: plans.unpack_plan(assets(), plan, place) for plan, _ in serving.values()}
        self.tenants = {tenant: gpu_tenant(paths[plan], **settings) for tenant, (plan, settings) in serving.items()}
        self.questions: dict[str, Sequence[Question]] = {
            tenant: questions_for(plan) for tenant, (plan, _) in serving.items()
        }
        super().__init__(self.tenants)


@contextmanager
def gpu_stage(serving: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[GpuStage]:
    """A daemon that is ready, with these tenants: the plan of each, and settings beside it."""
    with tempfile.TemporaryDirectory(prefix="trtd-plans-") as directory, GpuStage(Path(directory), serving) as daemon:
        yield from daemon.run()
