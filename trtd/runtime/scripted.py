"""Models that misbehave on demand: a small JSON script instead of a model file, for tests and chaos runs.

A script gives back its inputs, after it has done what `behaviour` names: always, or, with `when`, only for a request
whose first element has that value. What it does it does for real: a crash is a SIGSEGV, a leak is memory, a hang is
native code.

    {"inputs": [{"name": "x", "dtype": "float32", "shape": [null, 4]}],
     "outputs": ["y"], "behaviour": "crash", "when": {"value": 666}}
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtd.core.batching import PROVEN
from trtd.core.faults import Fault, FaultKind, ProcessFault
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory, Usage
from trtd.files import open_regular
from trtd.runtime.candidates import objection
from trtd.runtime.gather import cut, join
from trtd.runtime.protocol import Arrays, RuntimeInfo, Shapes
from trtd.wire.messages import Dtype, ModelDescription, TensorContract
from trtd.wire.settings import ModelSettings
from trtd.wire.tensors import to_numpy

VERSION = "1"
KEYS = {"inputs", "outputs", "behaviour", "when", "seconds", "bytes", "exit_code"}


@dataclass(frozen=True, slots=True)
class Script:
    """One script, read and checked.

    Attributes:
        inputs: what it takes.
        outputs: names of its outputs, one for each input; the inputs' own by default.
        behaviour: one of `BEHAVIOURS` or `LOAD_BEHAVIOURS`.
        value: first element of the requests that trigger the behaviour; None triggers it always.
        seconds: for `sleep` and `slow_load`.
        leak_bytes: for `leak`, each time; `bytes` in the file.
        exit_code: for `exit`.
    """

    inputs: tuple[TensorContract, ...]
    outputs: tuple[str, ...]
    behaviour: str
    value: float | None
    seconds: float
    leak_bytes: int
    exit_code: int


leaked: list[bytes] = []


def do_nothing(_: Script) -> None:
    """`identity`: give back the inputs, and that is all."""


def do_sleep(script: Script) -> None:
    """`sleep`: answer late, as a slow model does; the interpreter goes on."""
    time.sleep(script.seconds)


def do_hang(_: Script) -> None:
    """`hang`: never answer; the interpreter goes on, so beats do and progress does not."""
    while True:
        time.sleep(3600)


def do_hang_holding_gil(_: Script) -> None:
    """`hang_holding_gil`: never return from native code that keeps the interpreter; even beats stop."""
    native = ctypes.PyDLL(None)
    while True:
        native.pause()


def do_crash(_: Script) -> None:
    """`crash`: SIGSEGV."""
    ctypes.string_at(0)


def do_exit(script: Script) -> None:
    """`exit`: leave without a word, with the exit code of the script."""
    os._exit(script.exit_code)


def do_leak(script: Script) -> None:
    """`leak`: keep memory that is really written to."""
    leaked.append(b"\xff" * script.leak_bytes)


def do_fault(_: Script) -> None:
    """`fault`: find the process unsound, as a runtime does after a sticky error."""
    raise ProcessFault(Fault(FaultKind.CRASHED, "the script says that this process is not sound any more"))


def do_model_failed(_: Script) -> None:
    """`model_failed`: refuse the input; the process is sound."""
    raise ModelFailed("the script refuses this input")


def do_out_of_memory(_: Script) -> None:
    """`out_of_memory`: refuse for want of memory; the process is sound."""
    raise OutOfMemory("the script says that memory did not suffice")


def do_raise(_: Script) -> None:
    """`raise`: an exception that nobody expects, as a defect gives."""
    raise RuntimeError("a defect in the script's runtime")


BEHAVIOURS: dict[str, Callable[[Script], None]] = {
    "identity": do_nothing,
    "sleep": do_sleep,
    "hang": do_hang,
    "hang_holding_gil": do_hang_holding_gil,
    "crash": do_crash,
    "exit": do_exit,
    "leak": do_leak,
    "fault": do_fault,
    "model_failed": do_model_failed,
    "out_of_memory": do_out_of_memory,
    "raise": do_raise,
}
"""What can happen in a run."""
LOAD_BEHAVIOURS = ("slow_load", "fail_load")
"""What can happen while the model is loaded; its runs are those of `identity`."""


class ScriptedRuntime:
    """Loads scripts and plays them."""

    @property
    def info(self) -> RuntimeInfo:
        """Name and version."""
        return RuntimeInfo("scripted", VERSION)

    def load(self, settings: ModelSettings) -> ScriptedModel:
        """Read a script; see `trtd.runtime.protocol.Runtime.load`."""
        script = read_script(settings)
        if script.behaviour == "fail_load":
            raise InvalidConfig(f"model {settings.name!r}: {settings.path}: the script says that it cannot be loaded")
        if script.behaviour == "slow_load":
            time.sleep(script.seconds)
        return ScriptedModel(script, settings)

    def device_memory(self) -> None:
        """There is no device."""

    def pin(self, memory: np.ndarray) -> None:
        """Copies on the CPU need no pinning."""

    def unpin(self, memory: np.ndarray, then: Callable[[], None]) -> None:  # noqa: ARG002
        """The opposite of `pin`."""
        then()

    def make_fault(self, fault: str) -> None:
        """There is no device to make it on; see `trtd.runtime.protocol.Runtime.make_fault`."""
        raise Usage(f"this runtime has no device to make {fault!r} on")

    def close(self) -> None:
        """Nothing is held beside the models."""


class ScriptedModel:
    """A script that is played as a model."""

    def __init__(self, script: Script, settings: ModelSettings) -> None:
        self._script = script
        outputs = tuple(
            TensorContract(name, one.dtype, one.shape) for name, one in zip(script.outputs, script.inputs, strict=True)
        )
        batching = objection(script.inputs, outputs, settings.max_batch)
        is_batched = not batching
        self._description = ModelDescription(
            name=settings.name,
            version=settings.version,
            inputs=script.inputs,
            outputs=outputs,
            is_batched=is_batched,
            max_batch=settings.max_batch if is_batched else 0,
            # A script gives back its inputs item by item: there is nothing to be shown.
            batching=batching or PROVEN,
        )

    @property
    def description(self) -> ModelDescription:
        """As the script says."""
        return self._description

    @property
    def copies_inputs(self) -> bool:
        """No: what a lone request brings is given back as it is."""
        return False

    def most_items(self, shapes: Shapes) -> None:
        """Any number."""

    @property
    def shares_warmth(self) -> bool:
        """There is none."""
        return True

    def never_join(self) -> None:
        """Nothing is ever added to a request."""

    def open_slot(self) -> ScriptedSlot:
        """A slot; it has no state of its own."""
        return ScriptedSlot(self._script)

    def warm_up_inputs(self, like: Arrays | None = None) -> Sequence[Arrays]:  # noqa: ARG002 - see the protocol
        """One request of zeros, if the script harms only a value: else there would be no READY to be harmed."""
        if self._script.value is None:
            return ()
        return (
            {
                one.name: np.zeros([1 if size is None else size for size in one.shape or ()], to_numpy(one.dtype))
                for one in self._script.inputs
            },
        )


class ScriptedSlot:
    """Plays one batch at a time."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._act = BEHAVIOURS.get(script.behaviour, do_nothing)

    def settle(self, request: Arrays) -> None:
        """Each run is as the first one."""
        self.run([request])

    def run(self, requests: Sequence[Arrays]) -> Sequence[Arrays]:
        """Play one batch; see `trtd.runtime.protocol.Slot.run`. One request that triggers is enough, as with poison."""
        if any(self._is_triggered_by(request) for request in requests):
            self._act(self._script)
        inputs = join(requests)
        outputs = {name: inputs[one.name] for name, one in zip(self._script.outputs, self._script.inputs, strict=True)}
        return cut(outputs, requests)

    def _is_triggered_by(self, request: Arrays) -> bool:
        if self._script.value is None:
            return True
        first = request[self._script.inputs[0].name]
        return bool(first.size) and first.flat[0] == self._script.value


def read_script(settings: ModelSettings) -> Script:
    """Read and check the script at the model's path.

    Raises:
        trtd.errors.InvalidConfig: the file is missing or is no script; it says what is wrong.
    """
    where = f"model {settings.name!r}: {settings.path}"
    try:
        with open_regular(settings.path) as file:
            fields = json.loads(file.read())
    except OSError as error:
        raise InvalidConfig(f"{where}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidConfig(f"{where}: not a script: {error}") from error
    try:
        return parse_script(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidConfig(f"{where}: not a script: {type(error).__name__}: {error}") from error


def parse_script(fields: dict[str, Any]) -> Script:
    """A script from its JSON object; raises what the access to wrong fields raises."""
    unknown = fields.keys() - KEYS
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
    inputs = tuple(
        TensorContract(
            one["name"], Dtype(one["dtype"]), tuple(None if size is None else int(size) for size in one["shape"])
        )
        for one in fields["inputs"]
    )
    outputs = tuple(fields.get("outputs", [one.name for one in inputs]))
    behaviour = fields.get("behaviour", "identity")
    if not inputs or len(outputs) != len(inputs):
        raise ValueError("it needs at least one input, and as many outputs as inputs")
    if behaviour not in BEHAVIOURS and behaviour not in LOAD_BEHAVIOURS:
        raise ValueError(f"unknown behaviour {behaviour!r}; there are: {', '.join((*BEHAVIOURS, *LOAD_BEHAVIOURS))}")
    when = fields.get("when")
    return Script(
        inputs=inputs,
        outputs=outputs,
        behaviour=behaviour,
        value=None if when is None else float(when["value"]),
        seconds=float(fields.get("seconds", 1.0)),
        leak_bytes=int(fields.get("bytes", 16 * 1024 * 1024)),
        exit_code=int(fields.get("exit_code", 1)),
    )
