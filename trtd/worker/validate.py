"""Which model a request means, and whether its inputs are what that model takes.

Everything that can be refused without running is refused here, with what came and what was wanted. Requests that agree
in their group may share a batch (`trtd.core.batching`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Never

import numpy as np

from trtd.core.batching import BatchLimits
from trtd.errors import InvalidInput, Malformed, UnknownModel
from trtd.runtime.protocol import Model
from trtd.wire.messages import InferRequest, TensorContract, TensorSpec
from trtd.wire.settings import ModelSettings
from trtd.wire.tensors import from_frame


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that its model takes.

    Attributes:
        inputs: views on its frames, by name.
        items: its first dimension; 1 where the model is not batched.
        group: requests of equal groups may share a batch; None runs alone.
    """

    inputs: dict[str, np.ndarray]
    items: int
    group: Hashable | None


class ServedModel:
    """One loaded model, as requests are compared with it. Compared itself by identity: it is part of groups."""

    def __init__(self, model: Model, settings: ModelSettings) -> None:
        self.model = model
        self.settings = settings
        self.description = model.description
        self.limits = BatchLimits(settings.max_batch if self.description.is_batched else 1, settings.max_delay_s)
        self._contracts = {contract.name: contract for contract in self.description.inputs}

    def __str__(self) -> str:
        return f"{self.description.name} {self.description.version}"

    def admit(self, specs: Sequence[TensorSpec], frames: Sequence[Any]) -> Admitted:
        """Check the inputs of a request and make arrays of them.

        Args:
            specs: as its header names them.
            frames: their bytes, in the same order.

        Raises:
            trtd.errors.InvalidInput: names, dtypes or shapes are not what the model takes.
            trtd.errors.Malformed: the frames are not what the header says.
        """
        if len(specs) != len(self._contracts):
            self._refuse_names(specs)
        if len(frames) != len(specs):
            raise Malformed(f"the header names {len(specs)} tensors, the message has {len(frames)} tensor frames")
        inputs = {}
        for spec, frame in zip(specs, frames, strict=True):
            contract = self._contracts.get(spec.name)
            if contract is None:
                self._refuse_names(specs)
            if spec.dtype is not contract.dtype:
                self._refuse(contract, f"got {spec.dtype}, wanted {contract.dtype}")
            if len(spec.shape) != len(contract.shape):
                self._refuse_shape(contract, spec)
            for got, wanted in zip(spec.shape, contract.shape, strict=True):
                if got != wanted and wanted is not None:
                    self._refuse_shape(contract, spec)
            inputs[spec.name] = from_frame(spec, frame)
        if not self.description.is_batched:
            return Admitted(inputs, 1, None)
        items = self._count_items(specs)
        # Nothing to share a run with: runtimes differ in what they make of no items.
        group = (self, *[inputs[name].shape[1:] for name in self._contracts]) if items else None
        return Admitted(inputs, items, group)

    def _count_items(self, specs: Sequence[TensorSpec]) -> int:
        items = specs[0].shape[0]
        for spec in specs:
            if spec.shape[0] != items:
                raise InvalidInput(
                    f"model {self}: the first dimension counts the items, but input {specs[0].name!r} has {items} "
                    f"and input {spec.name!r} has {spec.shape[0]}"
                )
        if items > self.description.max_batch:
            raise InvalidInput(
                f"model {self}: got {items} items in one request, wanted at most {self.description.max_batch}"
            )
        return items

    def _refuse_names(self, specs: Sequence[TensorSpec]) -> Never:
        got = ", ".join(repr(spec.name) for spec in specs) or "none"
        wanted = ", ".join(repr(name) for name in self._contracts) or "none"
        raise InvalidInput(f"model {self}: got inputs {got}, wanted {wanted}")

    def _refuse_shape(self, contract: TensorContract, spec: TensorSpec) -> Never:
        self._refuse(contract, f"got shape {show_shape(spec.shape)}, wanted {show_shape(contract.shape)}")

    def _refuse(self, contract: TensorContract, text: str) -> Never:
        raise InvalidInput(f"model {self}: input {contract.name!r}: {text}")


def show_shape(shape: Sequence[int | None]) -> str:
    """A shape for people: `[?, 4]`, a question mark where any size will do."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


class Catalogue:
    """The models of a worker, by name and version."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)
        self._by_name: dict[tuple[str, str | None], ServedModel] = {}
        for one in models:
            self._by_name[one.description.name, one.description.version] = one
            # The newest version is the last one in configuration order.
            self._by_name[one.description.name, None] = one

    def find(self, request: InferRequest) -> ServedModel:
        """The model that a request means; without a version, the newest.

        Raises:
            trtd.errors.UnknownModel: there is none; it names those that there are.
        """
        found = self._by_name.get((request.model, request.version))
        if found is None:
            version = "" if request.version is None else f" version {request.version!r}"
            names = ", ".join(str(one) for one in self.models)
            raise UnknownModel(f"no model {request.model!r}{version}; there are: {names}")
        return found
