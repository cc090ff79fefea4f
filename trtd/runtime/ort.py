"""ONNX Runtime, imported here and nowhere else in trtd: it has to be told before that nothing may leave this host.

A worker has the variable from its birth; this is for processes that others start, such as `trtd bench --bare`.
"""

from __future__ import annotations

import os

from trtd.core.privacy import TELEMETRY_OFF

os.environ.update(TELEMETRY_OFF)

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

__all__ = ["ort", "ort_state"]
