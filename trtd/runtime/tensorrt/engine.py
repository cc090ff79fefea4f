"""One deserialized engine: what it takes, what it needs, and the contexts made from it.

Everything that a slot has to know is read here once. Contexts are USER_MANAGED: their scratch memory is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from trtd.core.memory_plan import MemoryPlan
from trtd.engine.header import PlanHeader
from trtd.errors import InvalidConfig
from trtd.runtime.protocol import Shapes
from trtd.runtime.tensorrt.allocator import ALIGNMENT_BYTES
from trtd.runtime.tensorrt.judge import CallRefused, ask, assign, insist
from trtd.runtime.tensorrt.profiles import Profile, Shape, largest_shapes, smallest_shapes
from trtd.runtime.tensorrt.tensors import read_profiles, read_tensors

CONTEXT_BYTES = 2048
"""What a context allocates besides its scratch memory, as measured with TensorRT 10.6."""

LEAST_PRECISION = 8
"""A weight part that is smaller than the refittable weights by more than this holds them in no precision there is."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Sizes for one slot in bytes.

    Attributes:
        enqueue_bytes: scratch memory.
        tensor_bytes: each tensor at its largest; 0 where only the run tells.
        growth_bytes: those that only the run tells, together, as far as TensorRT knows a bound.
    """

    enqueue_bytes: int
    tensor_bytes: Mapping[str, int]
    growth_bytes: int = 0


class Engine:
    """A deserialized engine and what is known of it.

    Attributes:
        tensors: inputs and outputs in the engine's order.
        inputs: of them.
        outputs: of them.
        profiles: what shapes it takes.
        is_batched: whether the first dimension of every tensor counts the items of a batch.
        growing: names of outputs whose size is known only after the run.
        most_items: most items that are joined; None where it is not batched. A lone request may have more.
        is_streaming: whether weights are streamed to the device while it runs.
    """

    def __init__(self, module: ModuleType, raw: Any, header: PlanHeader, max_batch: int) -> None:
        """Read the engine.

        Raises:
            trtd.errors.InvalidConfig: its tensors do not travel, or it has no weights.
            CallRefused: TensorRT refused a call.
        """
        self.raw = raw
        self._module = module
        self._header = header
        self.is_streaming = False
        self.tensors = read_tensors(module, raw)
        self.inputs = tuple(tensor for tensor in self.tensors if tensor.is_input)
        self.outputs = tuple(tensor for tensor in self.tensors if not tensor.is_input)
        self.profiles = read_profiles(raw, self.tensors)
        self.is_batched, self.growing = self._examine(max_batch)
        self.most_items = min(max_batch, max(one.most_items for one in self.profiles)) if self.is_batched else None

    def make_context(self) -> Any:
        """A new execution context without scratch memory.

        Raises:
            CallRefused: memory did not suffice, or worse.
        """
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = ask(self.raw.create_execution_context, strategy)
        if context is None:
            raise CallRefused("create_execution_context")
        return context

    def needs(self) -> Needs:
        """What one slot needs at its largest; it follows the streaming budget."""
        if hasattr(self.raw, "get_device_memory_size_for_profile_v2"):
            sizes = [self.raw.get_device_memory_size_for_profile_v2(one.index) for one in self.profiles]
        else:
            sizes = [self.raw.device_memory_size_v2]
        scratch_bytes = max(sizes)
        if self.is_streaming:
            # Not part of what a profile is said to need.
            scratch_bytes += int(self.raw.weight_streaming_scratch_memory_size)
            scratch_bytes = max(scratch_bytes, int(self.raw.device_memory_size_v2))
        largest: dict[str, int] = {}
        growing: dict[str, int] = {}
        context = self.make_context()
        for profile in self.profiles:
            # Not bounded by `max_batch`: a lone request may have as many items as the plan takes.
            shapes = largest_shapes(profile, None)
            outputs = self.output_shapes(context, profile, shapes)
            for tensor in self.tensors:
                shape = shapes[tensor.name] if tensor.is_input else outputs[tensor.name]
                size_bytes = 0 if -1 in shape else tensor.size_bytes(shape)
                largest[tensor.name] = max(largest.get(tensor.name, 0), size_bytes)
            for name in self.growing:
                growing[name] = max(growing.get(name, 0), int(ask(context.get_max_output_size, name)))
        return Needs(scratch_bytes, largest, sum(growing.values()))

    def plan(self, needs: Needs, slots: int, shared_bytes: int, overhead_bytes: int) -> MemoryPlan:
        """The sum for admission once the weights are loaded."""
        on_device = [one.name for one in self.tensors if not one.is_host and one.name not in self.growing]
        return MemoryPlan(
            weights_bytes=0,
            context_bytes=CONTEXT_BYTES * len(self.profiles),
            enqueue_bytes=max(needs.enqueue_bytes, ALIGNMENT_BYTES),
            shared_bytes=shared_bytes,
            io_bytes=sum(max(needs.tensor_bytes[name], ALIGNMENT_BYTES) for name in on_device),
            slots=slots,
            overhead_bytes=overhead_bytes,
        )

    def output_shapes(self, context: Any, profile: Profile, shapes: Shapes) -> dict[str, Shape]:
        """Shapes of the outputs for shapes of the inputs, -1 where only the run tells. Any context, any stream.

        Raises:
            CallRefused: TensorRT refused a shape.
        """
        if context.active_optimization_profile != profile.index:
            insist(context.set_optimization_profile_async, profile.index, 0)
        for tensor in self.inputs:
            if not tensor.is_host or -1 in tensor.shape:
                insist(context.set_input_shape, tensor.name, shapes[tensor.name])
        return {tensor.name: tuple(ask(context.get_tensor_shape, tensor.name)) for tensor in self.outputs}

    def check_weights(self, logger: Any) -> None:
        """Refuse a plan that was built without its weights: it would load, and answer zeros.

        Raises:
            trtd.errors.InvalidConfig: the weights are not in it.
        """
        stripped = self._stripped_bytes(logger)
        if stripped:
            raise InvalidConfig(
                f"it was built without its weights ({stripped} bytes are missing) and would answer zeros; "
                "refit it and save the whole plan"
            )

    def _stripped_bytes(self, logger: Any) -> int:
        if hasattr(self._module, "EngineStat"):
            return max(0, int(self.raw.get_engine_stat(self._module.EngineStat.STRIPPED_WEIGHTS_SIZE)))
        if not self.raw.refittable:
            return 0
        # Older versions do not say it. What could be refitted has to be somewhere in the plan.
        refitter = self._module.Refitter(self.raw, logger)
        wanted = sum(int(refitter.get_weights_prototype(name).nbytes) for name in refitter.get_all_weights())
        return wanted if self._header.weights_bytes * LEAST_PRECISION < wanted else 0

    def stream_weights(self, budget_bytes: int) -> None:
        """Keep at most so many bytes of the weights on the device; -1 for all. Called before any context is made.

        Raises:
            trtd.errors.InvalidConfig: the plan was not built for it.
        """
        if budget_bytes < 0:
            return
        streamable = int(self.raw.streamable_weights_size)
        if not streamable:
            raise InvalidConfig("tensorrt.streamed_weights_bytes is set, and it was not built with WEIGHT_STREAMING")
        budget = min(budget_bytes, streamable)
        assign(self.raw, "weight_streaming_budget_v2", budget)
        self.is_streaming = budget < streamable

    def _examine(self, max_batch: int) -> tuple[bool, frozenset[str]]:
        """Whether outputs follow the items of the inputs, and which outputs nobody can size before the run."""
        context = self.make_context()
        growing: set[str] = set()
        is_batched = max_batch > 1 and bool(self.inputs)
        for tensor in self.tensors:
            is_batched = is_batched and bool(tensor.shape) and tensor.shape[0] == -1 and not tensor.is_host
        for profile in self.profiles:
            for shapes in (smallest_shapes(profile), largest_shapes(profile, None)):
                outputs = self.output_shapes(context, profile, shapes)
                growing |= {name for name, shape in outputs.items() if -1 in shape}
                items = {shape[0] for shape in (*shapes.values(), *outputs.values()) if shape}
                is_batched = is_batched and len(items) == 1
        return is_batched and not growing, frozenset(growing)
