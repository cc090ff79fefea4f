"""Real faults in a context: each is found, named, and ends the process; want of memory does not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu

PROGRAM = """
import json, sys
from tests.gpu.conftest import model_settings, reference, check
from pathlib import Path
from trtd.core.faults import ProcessFault
from trtd.errors import TrtdError
from trtd.runtime import open_runtime, cuda
from trtd.runtime.injection import Injector
from trtd.wire.tensorrt import TensorRTSettings
import os
assets, fault = Path(sys.argv[1]), sys.argv[2]
runtime = open_runtime("tensorrt", threads=1, tensorrt=TensorRTSettings())
model = runtime.load(model_settings(assets, "mlp.plain"))
slot = model.open_slot()
inputs, outputs = reference(assets, "mlp", "one")
told = {}
injector = Injector()
try:
    injector.inject(fault)
except (cuda.CudaError, TrtdError) as error:
    told["injected"] = getattr(error, "code", None) if isinstance(error, cuda.CudaError) else str(error.code)
if fault == "endless_kernel":
    injector.inject("end_endless_kernel")
try:
    check("mlp.plain", slot.run([inputs])[0], outputs)
    told["run"] = "ok"
except ProcessFault as error:
    told["run"] = [str(error.fault.kind), error.fault.code, error.fault.sticky]
except TrtdError as error:
    told["run"] = str(error.code)
try:
    model.open_slot().close()
    told["slot"] = "ok"
except ProcessFault as error:
    told["slot"] = error.fault.code
except TrtdError as error:
    told["slot"] = str(error.code)
print(json.dumps(told), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("fault", "code"),
    [("illegal_address", 700), ("trap", 719), ("misaligned_access", 716), ("device_assert", 710)],
)
def test_sticky_faults_end_the_process(assets, fault, code):
    """After the fault the next run, and the next slot, raise a process fault with the code."""
    told = run(assets, fault)
    assert told == {"injected": code, "run": ["sticky_error", code, True], "slot": code}


def test_out_of_memory_is_survived(assets):
    """A refused allocation leaves the process sound."""
    assert run(assets, "out_of_memory") == {"injected": "out_of_memory", "run": "ok", "slot": "ok"}


def test_an_endless_kernel_can_be_told_to_stop(assets):
    """It ends when told, and the slot goes on."""
    assert run(assets, "endless_kernel") == {"run": "ok", "slot": "ok"}


def run(assets, fault):
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(assets), fault], capture_output=True, text=True, timeout=100
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout.splitlines()[-1])
