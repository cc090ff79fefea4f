"""Real TensorRT plans with reference answers: a directory with `plans/` and `references/`, and how close is right.

plans/NAME.VARIANT.plan[.xz]    serialized engines
references/NAME.ref.npz         arrays CASE.in.TENSOR and CASE.out.TENSOR
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import numpy as np

from trtd.errors import InvalidConfig

CASES = ("one", "three", "opt")
"""Of each reference: one item, three, and what the plan was tuned for."""

LARGEST_DIFFERENCE = {
    "mlp": 2.1e-4,
    "mlp_two_profiles": 3.7e-4,
    "squeezenet_fp16": 1.0e-3,
    "resnet50_fp16": 3.2e-2,
    "encoder_fp16": 7.9e-3,
    "two_io": 0.0,
    "nonzero": 0.0,
}
"""Between a reference, which is ONNX Runtime's on the CPU, and TensorRT 10.6 on an H200; three times that is right."""

Arrays = dict[str, np.ndarray]


def allowed_difference(model: str) -> float:
    """How far an answer may be from its reference, absolutely."""
    return 3 * LARGEST_DIFFERENCE[model]


def check_directory(source: Path) -> None:
    """Whether a directory holds plans and references.

    Raises:
        trtd.errors.InvalidConfig: it does not.
    """
    for name in ("plans", "references"):
        if not (source / name).is_dir():
            raise InvalidConfig(f"{source} has no directory {name}; wanted plans/NAME.VARIANT.plan and references/")


def unpack_plan(source: Path, plan: str, place: Path) -> Path:
    """Write a plan, named `NAME.VARIANT`, into another directory; packed ones are unpacked.

    Raises:
        trtd.errors.InvalidConfig: there is no such plan.
    """
    target = place / f"{plan}.plan"
    plain = source / "plans" / target.name
    packed = plain.with_name(f"{target.name}.xz")
    if plain.exists():
        shutil.copy(plain, target)
    elif packed.exists():
        target.write_bytes(lzma.decompress(packed.read_bytes()))
    else:
        raise InvalidConfig(f"there is no plan {plain} and no {packed.name} beside it")
    return target


def read_reference(path: Path, case: str) -> tuple[Arrays, Arrays]:
    """Inputs and outputs of one case of a reference file."""
    inputs: Arrays = {}
    outputs: Arrays = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            found, kind, tensor = key.split(".", 2)
            if found == case:
                (inputs if kind == "in" else outputs)[tensor] = file[key]
    return inputs, outputs
