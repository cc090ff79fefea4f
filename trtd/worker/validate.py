"""Which model a request means, and whether its inputs are what that model takes.

Everything that can be refused without running is refused here, with what came and what was wanted. Requests that agree
in their group may share a batch (`trtd.core.batching`). Headers that differ in their id alone are looked at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Never

from trtd.core.batching import FORCED, PROVEN, BatchLimits
from trtd.core.ids import RequestId
from trtd.errors import InvalidInput, Malformed, UnknownModel
from trtd.runtime.inputs import Layout
from trtd.runtime.protocol import Model
from trtd.wire.codec import decode_client_message
from trtd.wire.frames import payload_bytes
from trtd.wire.memo import AFTER_ID, BEFORE_ID, Remembered, split_header
from trtd.wire.messages import InferRequest, TensorContract, TensorSpec
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES, ModelSettings
from trtd.worker.answer_sizes import refuse_before
from trtd.worker.plans import Plan

ALONE_FROM_BYTES = 1 << 20
"""Requests with so much input run alone in a runtime that reads inputs where they lie, as those on the CPU do.

To join them, and to cut what comes of it, costs more than a common run saves. Measured with an echo of 4 MiB in shared
memory, 32 requests in flight, two busy cores: 7 to 10 times as many requests per second alone.
"""
MAX_SHOWN = 16
"""Most names in one line for people."""


class ServedModel:
    """One loaded model, as requests are compared with it. Compared itself by identity: it is part of groups."""

    def __init__(self, model: Model, settings: ModelSettings) -> None:
        self.model = model
        self.settings = settings
        self.description = model.description
        """As clients are told; `settle` completes it."""
        self.outputs = {contract.name: contract for contract in self.description.outputs}
        self.output_names = tuple(self.outputs)
        self._required = len(self.description.inputs)
        self._contracts = {
            contract.name: contract for contract in self.description.inputs + self.description.optional_inputs
        }

    def __str__(self) -> str:
        return f"{self.description.name} {self.description.version}"

    def settle(self, batching: str) -> None:
        """Say once and for all whether requests are joined, before any request is planned.

        Args:
            batching: see `trtd.wire.messages.ModelDescription`.
        """
        is_batched = batching in (PROVEN, FORCED)
        self.description = dataclasses.replace(
            self.model.description,
            is_batched=is_batched,
            max_batch=self.model.description.max_batch if is_batched else 0,
            batching=batching,
        )
        if not is_batched:
            self.model.never_join()

    def plan(
        self, specs: tuple[TensorSpec, ...], *, outputs: tuple[str, ...] | None = None, has_area: bool = False
    ) -> Plan:
        """Compare the inputs that a header names with what the model takes, and the outputs with what it gives.

        Args:
            specs: in the order of their frames.
            outputs: that are wanted; None for all.
            has_area: whether one more frame says where the outputs may be written.

        Raises:
            trtd.errors.InvalidInput: names, dtypes or shapes are others.
        """
        named, places = {}, {}
        for place, spec in enumerate(specs):
            contract = self._contracts.get(spec.name)
            if contract is None:
                self._refuse_names(specs)
            if spec.dtype is not contract.dtype:
                self._refuse(contract, f"got {spec.dtype}, wanted {contract.dtype}")
            if contract.shape is not None and not _fits(spec.shape, contract.shape):
                self._refuse_shape(contract, spec)
            named[spec.name] = spec
            places[spec.name] = place
        if any(contract.name not in named for contract in self.description.inputs):
            self._refuse_names(specs)
        if outputs is None:
            outputs = self.output_names
        elif not self.outputs.keys() >= set(outputs):
            self._refuse_outputs(outputs)
        ordered = [named[name] for name in self._contracts if name in named]
        order = [places[spec.name] for spec in ordered]
        items = most = 1
        group: Hashable | None = None
        # What has a default is one for all items, so that who gives another runs alone.
        if self.description.is_batched and len(specs) == self._required:
            items = specs[0].shape[0]
            most = self._most_items(items, specs)
            # No items are nothing to share a run with: runtimes differ in what they make of them. Inputs that disagree
            # are for the model to take or not: some spread one item over all of another input.
            if items and all(spec.shape[0] == items for spec in specs) and not self._runs_alone(ordered):
                group = (self, outputs, *[spec.shape[1:] for spec in ordered])
        limits = BatchLimits(most, self.settings.max_delay_s)
        return Plan(self, Layout(tuple(ordered), items, outputs), group, limits, order, has_area=has_area)

    def _runs_alone(self, specs: Sequence[TensorSpec]) -> bool:
        return not self.model.copies_inputs and sum(map(payload_bytes, specs)) >= ALONE_FROM_BYTES

    def _most_items(self, items: int, specs: Sequence[TensorSpec]) -> int:
        """Most items of a batch of such requests. One with more is no batch, and runs alone if the model takes it."""
        max_batch = self.settings.max_batch
        most = self.model.most_items({spec.name: spec.shape for spec in specs})
        # Where no number of such items would do, the runtime says best why.
        if not most:
            return max_batch
        if items > most:
            raise InvalidInput(
                f"model {self}: got {items} items in one request; of this shape the model takes at most {most}, "
                f"whatever max_batch is ({max_batch})"
            )
        return min(max_batch, most)

    def _refuse_names(self, specs: Sequence[TensorSpec]) -> Never:
        got = show_names(spec.name for spec in specs)
        wanted = show_names(one.name for one in self.description.inputs)
        optional = self.description.optional_inputs
        more = f" and, where wanted, {show_names(one.name for one in optional)}" if optional else ""
        raise InvalidInput(f"model {self}: got inputs {got}, wanted {wanted}{more}")

    def _refuse_outputs(self, outputs: Sequence[str]) -> Never:
        for name in outputs:
            for one in self.description.unserved:
                if name == one.name:
                    raise InvalidInput(f"model {self}: output {name!r} {one.reason}")
        unknown = show_names(name for name in outputs if name not in self.outputs)
        raise InvalidInput(f"model {self}: it has no outputs {unknown}; there are {show_names(self.output_names)}")

    def _refuse_shape(self, contract: TensorContract, spec: TensorSpec) -> Never:
        self._refuse(contract, f"got shape {show_shape(spec.shape)}, wanted {show_shape(contract.shape)}")

    def _refuse(self, contract: TensorContract, text: str) -> Never:
        raise InvalidInput(f"model {self}: input {contract.name!r}: {text}")


def _fits(got: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(got) == len(wanted) and all(one in (None, size) for size, one in zip(got, wanted, strict=True))


def show_names(names: Iterable[str]) -> str:
    """Names of tensors for people, the first ones where there are many."""
    shown = [repr(name) for name in islice(names, MAX_SHOWN + 1)]
    if len(shown) > MAX_SHOWN:
        shown[-1] = "..."
    return ", ".join(shown) or "none"


def show_shape(shape: Sequence[int | None] | None) -> str:
    """A shape for people: `[?, 4]`, a question mark where any size will do; `any` where any shape will do."""
    if shape is None:
        return "any"
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


class Desk:
    """Reads headers: decodes each, finds its model, compares its inputs, and remembers the outcome if it was good.

    Attributes:
        last: the last header whose id stands in its usual place, as what is before the id and after it, and its plan.
            The next one that agrees in both need not be read. Before the first, what no header agrees with.
    """

    def __init__(self, catalogue: Catalogue, max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES) -> None:
        self._catalogue = catalogue
        self._max_answer_bytes = max_answer_bytes
        self._plans: Remembered[Plan] = Remembered()
        self.last: tuple[bytes, bytes, Plan | None] = (b"", b"", None)

    def read(self, header: bytes) -> tuple[RequestId, Plan]:
        """The id of a request, and what it asks for.

        Raises:
            trtd.errors.TrtdError: it is refused, and why.
        """
        split = split_header(header)
        if split is None:
            request = self._decode(header)
            return request.id, self._plan(request)
        request_id, key = split
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(self._decode(header))
            self._plans.remember(key, plan)
        self.last = (header[BEFORE_ID], header[AFTER_ID], plan)
        return request_id, plan

    @staticmethod
    def _decode(header: bytes) -> InferRequest:
        request = decode_client_message(header)
        if not isinstance(request, InferRequest):
            raise Malformed("a worker answers infer requests only")
        return request

    def _plan(self, request: InferRequest) -> Plan:
        model = self._catalogue.find(request)
        plan = model.plan(request.inputs, outputs=request.outputs, has_area=request.has_area)
        if not request.has_area:
            refuse_before(model, plan.layout, self._max_answer_bytes)
        return plan
