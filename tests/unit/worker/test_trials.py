"""Keys under which an outcome is found again: they change with whatever it depends on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.graphs import graph, node, value
from tests.support.worker import make_model_settings, make_worker_settings
from trtd.runtime.protocol import RuntimeInfo
from trtd.wire.tensorrt import TensorRTSettings
from trtd.worker.trials import look_at_model, read_model, trial_key

ORT = RuntimeInfo("onnxruntime", "1")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"a model")
    return make_model_settings(path)


def key(model, runtime=ORT, runtime_name="scripted", **fields):
    worker = make_worker_settings(model, runtime=runtime_name, **fields)
    return trial_key(look_at_model(model.path, is_onnx=runtime_name == "onnxruntime"), model, worker, runtime)


def test_a_key_follows_the_bytes_and_not_the_file(model, tmp_path):
    """A copy that was written at another time has the same key under the same name; one other byte has another."""
    before = key(model)
    assert len(before) == 64
    os.utime(model.path, (1, 1))
    assert key(model) == before
    Path(model.path).write_bytes(b"a Model")
    assert key(model) != before


def test_a_key_follows_everything_else(model):
    """Runtime, its version, threads, options of the model and of the runtime."""
    keys = [
        key(model),
        key(model, RuntimeInfo("onnxruntime", "2")),
        key(model, RuntimeInfo("other", "1")),
        key(model, threads=7),
        key(replace(model, max_batch=3)),
        key(replace(model, batching="always")),
        key(model, tensorrt=TensorRTSettings()),
        key(model, tensorrt=TensorRTSettings(device=1)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(model, slots=5, replica=3, generation=9) == keys[0]


def test_a_file_that_was_replaced_meanwhile_has_no_key(model):
    """What was loaded may be another file than what was digested, so nothing is remembered; nor where one is gone."""
    worker = make_worker_settings(model)
    before = look_at_model(model.path, is_onnx=False)
    Path(model.path).write_bytes(b"another model")
    assert trial_key(before, model, worker, ORT) == ""
    Path(model.path).unlink()
    assert trial_key(before, model, worker, ORT) == ""
    assert trial_key((), model, worker, ORT) == ""


def test_weights_apart_count(tmp_path):
    """A changed file of external data makes another key, although the model is the same; without it there is none."""
    path = tmp_path / "m.onnx"
    proto = onnx.load_from_string(
        graph([node("MatMul", ["x", "w"], ["y"])], [value("x", ("n", 64))], [value("y", ("n", 64))],
              {"w": np.ones((64, 64), np.float32)})
    )  # fmt: skip
    onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    assert read_model(path, is_onnx=True)[1] == [tmp_path / "weights.bin"]
    model = make_model_settings(path)
    before = key(model, runtime_name="onnxruntime")
    assert before
    assert key(model, runtime_name="onnxruntime") == before
    weights = (tmp_path / "weights.bin").read_bytes()
    loaded = look_at_model(path, is_onnx=True)
    kept = (tmp_path / "weights.bin").stat()
    (tmp_path / "weights.bin").write_bytes(weights[:-1] + b"\x01")
    os.utime(tmp_path / "weights.bin", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert key(model, runtime_name="onnxruntime") not in ("", before)
    # The old ones were loaded, so that what comes of them says nothing of these.
    assert trial_key(loaded, model, make_worker_settings(model, runtime="onnxruntime"), ORT) == ""
    (tmp_path / "weights.bin").unlink()
    assert key(model, runtime_name="onnxruntime") == ""


def test_where_nobody_knows_the_weights_nothing_is_remembered(model):
    """What ONNX Runtime takes and our reader of ONNX files does not may have weights anywhere."""
    Path(model.path).write_bytes(b"\xff" * 16)
    assert key(model)
    assert key(model, runtime_name="onnxruntime") == ""
