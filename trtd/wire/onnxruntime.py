"""What a worker is told of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class OnnxRuntimeSettings:
    """ONNX Runtime as one tenant's workers use it.

    Attributes:
        execution_mode: `sequential`, or `parallel` for operators that do not wait for each other.
        inter_threads: threads that run operators side by side, where the mode is `parallel`.
        graph_optimization: `off`, `basic`, `extended` or `all`.
        memory_arena: whether memory on the CPU comes from an arena that keeps what it has had.
        shrink_arena: whether that arena gives back after each run what it need not keep.
        memory_pattern: whether the memory of a run is planned from runs of the same shapes.
        session_entries: further entries of a session's configuration, as names and values.
        custom_op_libraries: paths of libraries with operators of the operator's own.
        providers: execution providers, the most wanted first.
        provider_options: names of providers with their options, these as names and values.
    """

    execution_mode: str = "sequential"
    inter_threads: int = 1
    graph_optimization: str = "all"
    memory_arena: bool = True
    shrink_arena: bool = False
    memory_pattern: bool = True
    session_entries: tuple[tuple[str, str], ...] = ()
    custom_op_libraries: tuple[str, ...] = ()
    providers: tuple[str, ...] = (CPU_PROVIDER,)
    provider_options: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
