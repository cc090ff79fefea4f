"""What tests on a GPU host need: a device, a TensorRT, and the plans with their references.

They are found, not assumed: `TRTD_GPU_ASSETS` names a directory with `plans/` and `references/`. Where something is
missing, every test is skipped with the name of what is missing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.worker import make_model_settings
from trtd.demo import plans
from trtd.errors import TrtdError
from trtd.runtime import open_runtime
from trtd.wire.tensorrt import TensorRTSettings


def missing() -> str:
    """What this host lacks; empty when it lacks nothing."""
    assets = os.environ.get("TRTD_GPU_ASSETS", "")
    if not assets or not (Path(assets) / "plans").is_dir():
        return "TRTD_GPU_ASSETS names no directory with plans/ and references/"
    try:
        open_runtime("tensorrt", threads=1).close()
    except TrtdError as error:
        return error.message
    return ""


@pytest.fixture(scope="session", autouse=True)
def needs_gpu():
    """Skip everything where no GPU can be used."""
    reason = missing()
    if reason:
        pytest.skip(f"no GPU test can run: {reason}")


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """A directory with all plans unpacked, and the references beside them."""
    source = Path(os.environ["TRTD_GPU_ASSETS"])
    place = tmp_path_factory.mktemp("assets")
    for path in sorted((source / "plans").iterdir()):
        plans.unpack_plan(source, path.name.partition(".plan")[0], place)
    for path in (source / "references").iterdir():
        shutil.copy(path, place / path.name)
    return place


@pytest.fixture
def open_tensorrt():
    """Opens runtimes that are closed at the end."""
    opened = []

    def open_one(slots=1, **fields):
        runtime = open_runtime("tensorrt", threads=1, slots=slots, tensorrt=TensorRTSettings(**fields))
        opened.append(runtime)
        return runtime

    yield open_one
    for runtime in opened:
        runtime.close()


def model_settings(assets, plan, max_batch=64):
    """Settings of a model, from the name of its plan: `mlp.plain`."""
    return make_model_settings(assets / f"{plan}.plan", name=plan.partition(".")[0], max_batch=max_batch)


def reference(assets, plan, case):
    """Inputs and outputs of one case."""
    return plans.read_reference(assets / f"{plan.partition('.')[0]}.ref.npz", case)


def free_bytes():
    """What the device has left."""
    from trtd.runtime import cuda

    return cuda.memory_info()[0]


def check(plan, got, expected):
    """Within three times the largest difference that was seen on the card."""
    allowed = plans.allowed_difference(plan.partition(".")[0])
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype, name
        difference = np.max(np.abs(got[name].astype(np.float64) - array.astype(np.float64)), initial=0.0)
        assert difference <= allowed, f"{name} differs by {difference}"
