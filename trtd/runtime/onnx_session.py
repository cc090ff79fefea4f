"""Sessions of ONNX Runtime as an operator wants them: options, operators of his own, and what they run on."""

from __future__ import annotations

from pathlib import Path

from trtd.core.texts import shorten
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory, TrtdError
from trtd.files import check_regular
from trtd.runtime.code_files import untrusted
from trtd.runtime.ort import ort
from trtd.wire.onnxruntime import OnnxRuntimeSettings
from trtd.wire.settings import ModelSettings

MESSAGE_CHARS = 400
MEMORY_TEXTS = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")

EXECUTION_MODES = {"sequential": ort.ExecutionMode.ORT_SEQUENTIAL, "parallel": ort.ExecutionMode.ORT_PARALLEL}
OPTIMIZATIONS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
QUIET = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
"""Idle threads of one tenant must not burn the processors of the others, where nobody says otherwise."""


class Sessions:
    """Opens sessions with one tenant's settings.

    Attributes:
        run_options: for each run; None for none.
    """

    def __init__(self, threads: int, settings: OnnxRuntimeSettings) -> None:
        """Look at what is there, and load the libraries.

        Raises:
            trtd.errors.InvalidConfig: the package lacks a provider, or a library is not there, could be changed by
                others, or cannot be loaded.
        """
        self._settings = settings
        check_providers(settings.providers)
        for name, _ in settings.provider_options:
            if name not in settings.providers:
                raise InvalidConfig(f"onnxruntime.provider_options: {name} is not among onnxruntime.providers")
        options = self._options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = settings.inter_threads
        options.execution_mode = EXECUTION_MODES[settings.execution_mode]
        options.graph_optimization_level = OPTIMIZATIONS[settings.graph_optimization]
        options.enable_cpu_mem_arena = settings.memory_arena
        options.enable_mem_pattern = settings.memory_pattern
        options.log_severity_level = 3
        for name, value in {**QUIET, **dict(settings.session_entries)}.items():
            options.add_session_config_entry(name, value)
        for path in settings.custom_op_libraries:
            register(options, path)
        self.run_options: ort.RunOptions | None = None
        if settings.memory_arena and settings.shrink_arena:
            self.run_options = ort.RunOptions()
            self.run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def open(self, model: ModelSettings) -> ort.InferenceSession:
        """A session on a model.

        Raises:
            trtd.errors.InvalidConfig: the file, or a provider, cannot be used.
            trtd.errors.OutOfMemory: it does not fit.
        """
        options = dict(self._settings.provider_options)
        providers = [(name, dict(options.get(name, ()))) for name in self._settings.providers]
        try:
            check_regular(model.path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidConfig(f"model {model.name!r}: {model.path}: {reason.lower()}") from error
        try:
            # Without a provider that fails it would run on others, and nobody would know why it is slow.
            session = ort.InferenceSession(model.path, self._options, providers=providers, enable_fallback=0)
        except Exception as error:  # whatever the binding raises for a file, it is the file that cannot be used
            text = one_line(error)
            if is_out_of_memory(text):
                raise OutOfMemory(f"model {model.name!r} does not fit: {text}") from error
            raise InvalidConfig(f"model {model.name!r}: {model.path}: {text}") from error
        missing = [name for name in self._settings.providers if name not in session.get_providers()]
        if missing:
            raise InvalidConfig(
                f"model {model.name!r}: onnxruntime.providers: {', '.join(missing)} cannot be used on this host;"
                " the lines of ONNX Runtime before this one in the log say why"
            )
        return session


def check_providers(wanted: tuple[str, ...]) -> None:
    """Whether the installed package has these execution providers.

    Raises:
        trtd.errors.InvalidConfig: it lacks one; it says which there are.
    """
    there = ort.get_available_providers()
    missing = [name for name in wanted if name not in there]
    if missing:
        raise InvalidConfig(
            f"onnxruntime.providers: the installed ONNX Runtime {ort.__version__} has no {', '.join(missing)};"
            f" it has {', '.join(there)}"
        )


def register(options: ort.SessionOptions, path: str) -> None:
    """Load a library with operators, which is code of this process.

    Raises:
        trtd.errors.InvalidConfig: it is not there, could be changed by others, or is no such library.
    """
    trouble = untrusted(Path(path))
    if trouble:
        raise InvalidConfig(f"onnxruntime.custom_op_libraries: {trouble}")
    try:
        options.register_custom_ops_library(path)
    except Exception as error:  # as above
        raise InvalidConfig(f"onnxruntime.custom_op_libraries: {path}: {one_line(error)}") from error


def refusal(error: Exception) -> TrtdError:
    """The typed error for what a run raised."""
    text = one_line(error)
    return OutOfMemory(text) if is_out_of_memory(text) else ModelFailed(text)


def is_out_of_memory(text: str) -> bool:
    """Whether a text of ONNX Runtime says that memory did not suffice; it has no code for that."""
    lower = text.lower()
    return any(part in lower for part in MEMORY_TEXTS)


def one_line(error: Exception) -> str:
    """ONNX Runtime's text without line breaks, bounded; it goes to clients."""
    return shorten(" ".join(str(error).split()), MESSAGE_CHARS)
