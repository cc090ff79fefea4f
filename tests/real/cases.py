"""What is asked of a model, what comes of it, and how the two sides are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trtd.client.values import Tensor
from trtd.wire.tensors import Bits, bits_of

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One model file and requests for it.

    Attributes:
        name: for people, and to choose it by.
        path: of the file.
        questions: the inputs of each request.
        expected: the outputs that came with the file, for the first request; None where none came.
        relative: difference that is allowed where bits differ, relative to the value.
        absolute: the same in itself.
    """

    name: str
    path: str
    questions: Sequence[Tensors]
    expected: Tensors | None = None
    relative: float = 1e-3
    absolute: float = 1e-4


@dataclass
class Comparison:
    """Answers against what ONNX Runtime gave.

    Attributes:
        equal: answers that agree in all bits.
        close: that agree within what is allowed.
        largest: difference of these, at most.
        wrong: what is wrong with the others, a line for each.
    """

    equal: int = 0
    close: int = 0
    largest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, got: Tensors, wanted: Tensors) -> None:
        """Compare one answer."""
        if list(got) != list(wanted):
            self.wrong.append(f"{case.name}: outputs {', '.join(got)}, wanted {', '.join(wanted)}")
            return
        differences = [difference(got[name], wanted[name]) for name in wanted]
        if not any(differences):
            self.equal += 1
            return
        for name, found in zip(wanted, differences, strict=True):
            if found and not is_close(case, got[name], wanted[name]):
                self.wrong.append(f"{case.name}: output {name!r}: {describe(found)}")
                return
        self.close += 1
        self.largest = max(self.largest, *(found for found in differences if isinstance(found, float)))

    def merge(self, other: Comparison) -> None:
        """Count another one with this."""
        self.equal += other.equal
        self.close += other.close
        self.largest = max(self.largest, other.largest)
        self.wrong += other.wrong


def difference(got: Tensor, wanted: Tensor) -> float | str:
    """The largest difference of two tensors, 0 where all bits agree, or why they cannot be compared."""
    left, right = bits_of(got), bits_of(wanted)
    if left.shape != right.shape or left.dtype != right.dtype or isinstance(got, Bits) is not isinstance(wanted, Bits):
        return f"{got.dtype} of shape {list(left.shape)}, wanted {wanted.dtype} of shape {list(right.shape)}"
    if left.tobytes() == right.tobytes():
        return 0.0
    with np.errstate(invalid="ignore"):
        # An infinity less another one.
        wide = np.abs(widen(got) - widen(wanted))
    return float(np.nan_to_num(wide, nan=0.0).max(initial=0.0)) or float(np.finfo(np.float32).tiny)


def is_close(case: Case, got: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors agree within what the case allows; whole numbers and bools have to be equal."""
    if isinstance(difference(got, wanted), str):
        return False
    if not isinstance(got, Bits) and got.dtype.kind not in "fc":
        return False
    return np.allclose(widen(got), widen(wanted), rtol=case.relative, atol=case.absolute, equal_nan=True)


def widen(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Numbers whose differences do not overflow."""
    array = tensor.to_float32() if isinstance(tensor, Bits) else tensor
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def describe(found: float | str) -> str:
    """A difference in words."""
    return f"differs by {found:.3g}" if isinstance(found, float) else found
