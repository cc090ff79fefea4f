"""Calls of ONNX Runtime past the Python part of its API, where the installed version has its native part apart.

That part is private, so every function here has a way for a version that has it otherwise. What is left out are checks
for names that are missing, which were compared with the model before, and for what does not occur here: values of other
processors, graphs that these capture, providers to fall back to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trtd.runtime.ort import ort, ort_state
from trtd.runtime.protocol import Arrays

Places = Mapping[str, tuple[np.ndarray, int]]
"""By the names of outputs arrays that they are to be written to, and the addresses of these."""


def inner_run(session: ort.InferenceSession) -> Callable[..., Sequence[np.ndarray]]:
    """`session.run`, with the same arguments; a quarter of a small run's time is saved."""
    inner = getattr(session, "_sess", None)
    run: Callable[..., Sequence[np.ndarray]] = getattr(inner, "run", session.run)
    return run


class InnerBinding:
    """Runs with all outputs in memory that is given, by one binding for all runs. For one thread.

    It refers to what was bound last, but holds nothing of it, and never runs before all is bound anew.
    """

    def __init__(self, session: ort.InferenceSession, run_options: ort.RunOptions | None = None) -> None:
        """Make the binding.

        Raises:
            AttributeError, TypeError: this version has it otherwise.
        """
        inner = session._sess
        self._run = inner.run_with_iobinding
        self._run_options = run_options
        self._binding = ort_state.SessionIOBinding(inner)
        self._device = ort.OrtDevice.make("cpu", 0)._get_c_device()

    def run(self, inputs: Arrays, places: Places) -> None:
        """Run; raises what the runtime raises."""
        binding = self._binding
        for name, array in inputs.items():
            binding.bind_input(name, array)
        for name, (target, address) in places.items():
            binding.bind_output(name, self._device, target.dtype.type, target.shape, address)
        self._run(binding, self._run_options)


def inner_binding(session: ort.InferenceSession, run_options: ort.RunOptions | None = None) -> InnerBinding | None:
    """A binding past the Python part, None where this version has it otherwise."""
    try:
        return InnerBinding(session, run_options)
    except (AttributeError, TypeError):
        return None
