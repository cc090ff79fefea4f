"""A plan as a served model: checked, admitted by memory, deserialized, described, and opened as slots."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from trtd.core.batching import alone
from trtd.core.memory_plan import MemoryPlan, derived_hard_bytes, refuse
from trtd.engine.compatibility import Installed, incompatibility
from trtd.engine.header import PlanHeader, read_header
from trtd.errors import InvalidConfig, OutOfMemory
from trtd.files import open_regular
from trtd.runtime import cuda
from trtd.runtime.candidates import objection
from trtd.runtime.protocol import Arrays, Shapes
from trtd.runtime.tensorrt.engine import Engine, Needs
from trtd.runtime.tensorrt.judge import CallRefused, ask, judge_load
from trtd.runtime.tensorrt.profiles import (
    largest_shapes,
    largest_values,
    most_items,
    optimal_shapes,
    optimal_values,
    smallest_shapes,
    smallest_values,
)
from trtd.runtime.tensorrt.scratch import Promise
from trtd.runtime.tensorrt.session import Session
from trtd.runtime.tensorrt.slot import TensorRTSlot
from trtd.wire.messages import ModelDescription, TensorContract
from trtd.wire.settings import ModelSettings
from trtd.wire.tensorrt import TensorRTSettings

CONTEXT_BYTES = 500 * 1024**2
"""What the driver has taken for a context, where it does not say: 526 MiB on an H200, without any kernel."""


class TensorRTModel:
    """A loaded plan."""

    def __init__(
        self, session: Session, engine: Engine, needs: Needs, promise: Promise, settings: ModelSettings
    ) -> None:
        self._session = session
        self._engine = engine
        self._needs = needs
        self._promise = promise
        self._settings = settings
        self._description = describe(engine, settings)

    @property
    def description(self) -> ModelDescription:
        """What the engine says of its tensors."""
        return self._description

    @property
    def copies_inputs(self) -> bool:
        """Yes: to the device, or to the host memory of a shape tensor."""
        return True

    def most_items(self, shapes: Shapes) -> int:
        """As many as the largest of the profiles takes whose other dimensions are these."""
        return most_items(self._engine.profiles, shapes)

    @property
    def shares_warmth(self) -> bool:
        """No: contexts and graphs belong to a slot."""
        return False

    def never_join(self) -> None:
        """No rows are added to a request that is smaller than every profile, either."""
        self._engine.is_batched = False

    def open_slot(self) -> TensorRTSlot:
        """A slot with memory, contexts and graphs of its own."""
        what = f"model {self._settings.name!r} {self._settings.version}"
        owner = owner_of(self._settings)
        slot = TensorRTSlot(self._session, self._engine, self._needs, self._promise, what, owner)
        self._promise.slots_left = max(0, self._promise.slots_left - 1)
        return slot

    def warm_up_inputs(self, like: Arrays | None = None) -> Sequence[Arrays]:
        """See `made_up_inputs`."""
        return made_up_inputs(self._engine, like)


def made_up_inputs(engine: Engine, like: Arrays | None = None) -> list[Arrays]:
    """The smallest, the best and the largest shapes of each profile; shape tensors with values of the same.

    Filled with the values of a request. Without one, with ones (rather than zeros, because integers may divide).
    """
    wanted: list[tuple[Shapes, Shapes]] = []
    for profile in engine.profiles:
        for shapes, values in (
            (smallest_shapes(profile), smallest_values(profile)),
            (optimal_shapes(profile, engine.most_items), optimal_values(profile)),
            (largest_shapes(profile, engine.most_items), largest_values(profile)),
        ):
            if (dict(shapes), dict(values)) not in wanted:
                wanted.append((dict(shapes), dict(values)))
    dtypes = {tensor.name: tensor.numpy for tensor in engine.inputs}
    samples = like or {name: np.ones((), dtype) for name, dtype in dtypes.items()}
    return [
        {
            name: np.array(values[name], dtypes[name]).reshape(shape)
            if name in values
            else np.resize(samples[name], shape)
            for name, shape in shapes.items()
        }
        for shapes, values in wanted
    ]


def load_model(session: Session, runtime: Any, installed: Installed, settings: ModelSettings) -> TensorRTModel:
    """Load a plan; see `trtd.runtime.protocol.Runtime.load`.

    Raises:
        trtd.errors.InvalidConfig: it is missing, damaged, or not for this TensorRT or GPU.
        trtd.errors.OutOfMemory: it does not fit; the message names each term and the sum.
        trtd.core.faults.ProcessFault: the process is lost.
    """
    memory, scratch = session.memory, session.scratch
    memory.act_for(owner_of(settings))
    # What was derived for the models before is no bound for this one, which is admitted by what the device has.
    memory.bound(0)
    try:
        return _load(session, runtime, installed, settings)
    finally:
        memory.act_for("")
        memory.bound(
            derived_hard_bytes(
                held_bytes=memory.state().live_bytes,
                promised_bytes=scratch.promised_bytes,
                growth_bytes=scratch.growth_bytes,
                total_bytes=session.device.total_bytes,
            )
        )


def owner_of(settings: ModelSettings) -> str:
    """The name under which the ledger counts a model."""
    return f"{settings.name} {settings.version}"


def _load(session: Session, runtime: Any, installed: Installed, settings: ModelSettings) -> TensorRTModel:
    where = f"model {settings.name!r}: {settings.path}"
    with open_plan(settings.path, where) as plan:
        header = checked_header(plan, installed, where)
        overhead_bytes = overhead_to_come(session)
        admit(session, plan_of_weights(header, session.settings, overhead_bytes), where)
        with session.alone:
            session.book.clear()
            try:
                raw = ask(runtime.deserialize_cuda_engine, plan)
                if raw is None:
                    raise CallRefused("deserialize_cuda_engine")
                engine = Engine(session.module, raw, header, settings.max_batch)
                engine.check_weights(session.logger)
                engine.stream_weights(session.settings.streamed_weights_bytes)
                needs = engine.needs()
            except InvalidConfig as error:
                raise InvalidConfig(f"{where}: {error.message}") from error
            except (cuda.CudaError, CallRefused) as error:
                raise judge_load(error, session.book.take(), where) from error
    plan_of_slots = engine.plan(needs, session.slots, session.scratch.shared_bytes, overhead_bytes)
    admit(session, plan_of_slots, where)
    slot_bytes = plan_of_slots.context_bytes + plan_of_slots.io_bytes
    promise = session.scratch.promise(slot_bytes, plan_of_slots.enqueue_bytes, needs.growth_bytes)
    return TensorRTModel(session, engine, needs, promise, settings)


@contextmanager
def open_plan(path: str, where: str) -> Iterator[memoryview]:
    """The bytes of a plan, mapped and not copied.

    Raises:
        trtd.errors.InvalidConfig: the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            if not file.seek(0, 2):
                raise InvalidConfig(f"{where}: it is empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InvalidConfig(f"{where}: {error.strerror or error}") from error
    view = memoryview(mapped)
    try:
        yield view
    finally:
        view.release()
        mapped.close()


def checked_header(plan: memoryview, installed: Installed, where: str) -> PlanHeader:
    """The header of a plan that nothing speaks against.

    Raises:
        trtd.errors.InvalidConfig: it is no plan, or not one for this TensorRT.
    """
    try:
        header = read_header(plan)
    except InvalidConfig as error:
        raise InvalidConfig(f"{where}: {error.message}") from error
    problem = incompatibility(header, installed)
    if problem is not None:
        raise InvalidConfig(f"{where}: {problem}")
    return header


def overhead_to_come(session: Session) -> int:
    """What the driver is still expected to take: most of it is taken, since the context was made before the runtime."""
    taken_bytes = session.reconciler.first_unaccounted_bytes() or CONTEXT_BYTES
    return max(0, session.settings.overhead_bytes - taken_bytes)


def plan_of_weights(header: PlanHeader, settings: TensorRTSettings, overhead_bytes: int) -> MemoryPlan:
    """What is known before a plan is loaded: its weights, or of these what is to stay on the device."""
    budget_bytes = settings.streamed_weights_bytes
    if budget_bytes < 0:
        return MemoryPlan(header.weights_bytes, overhead_bytes=overhead_bytes)
    # With a budget only plans that were built for streaming are loaded, and their weights pass no allocator of ours.
    return MemoryPlan(streamed_bytes=min(header.weights_bytes, budget_bytes), overhead_bytes=overhead_bytes)


def admit(session: Session, plan: MemoryPlan, where: str) -> None:
    """Whether a model fits, before it takes anything.

    Raises:
        trtd.errors.OutOfMemory: it does not.
    """
    free_bytes, _ = cuda.memory_info()
    problem = refuse(
        plan,
        held_bytes=session.memory.state().live_bytes,
        promised_bytes=session.scratch.promised_bytes,
        hard_bytes=session.memory.configured_hard_bytes,
        free_bytes=free_bytes,
    )
    if problem is not None:
        raise OutOfMemory(f"{where}: {problem}")


def describe(engine: Engine, settings: ModelSettings) -> ModelDescription:
    """What clients are told."""

    def contracts(is_input: bool) -> tuple[TensorContract, ...]:
        return tuple(
            TensorContract(tensor.name, tensor.dtype, tuple(None if size < 0 else size for size in tensor.shape))
            for tensor in engine.tensors
            if tensor.is_input is is_input
        )

    inputs, outputs = contracts(is_input=True), contracts(is_input=False)
    batching = objection(inputs, outputs, settings.max_batch)
    if not engine.is_batched and not batching:
        batching = alone("the first dimensions of its outputs do not follow those of its inputs")
    return ModelDescription(
        name=settings.name,
        version=settings.version,
        inputs=inputs,
        outputs=outputs,
        is_batched=engine.is_batched,
        max_batch=engine.most_items or 0,
        batching=batching,
    )
