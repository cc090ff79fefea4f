"""How sessions of ONNX Runtime are opened: what an operator sets counts, and what is not there is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support import onnx_models
from tests.support.worker import make_model_settings
from trtd.demo import models
from trtd.errors import InvalidConfig
from trtd.runtime import onnx_session, open_runtime
from trtd.runtime.onnx_session import Sessions
from trtd.runtime.ort import ort
from trtd.wire.arenas import MIN_PLACED_BYTES
from trtd.wire.onnxruntime import CPU_PROVIDER, OnnxRuntimeSettings

CUDA = "CUDAExecutionProvider"
ROW = np.ones((1, 4), np.float32)


@pytest.fixture
def model(tmp_path):
    """Settings of a small model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(models.identity(dims=(4,)))
    return make_model_settings(path)


def test_what_is_set_counts(model):
    """Each setting arrives in the session's own options."""
    settings = OnnxRuntimeSettings(
        execution_mode="parallel",
        inter_threads=3,
        graph_optimization="basic",
        memory_arena=False,
        memory_pattern=False,
        session_entries=(("session.intra_op.allow_spinning", "1"), ("session.set_denormal_as_zero", "1")),
    )
    options = Sessions(2, settings).open(model).get_session_options()
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"


def test_what_is_not_set_is_as_before(model):
    """One operator at a time, everything optimized, an arena, and no thread that burns its processor."""
    options = Sessions(1, OnnxRuntimeSettings()).open(model).get_session_options()
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.enable_cpu_mem_arena
    assert options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("settings", [{"shrink_arena": True}, {"execution_mode": "parallel", "inter_threads": 2}])
def test_runs_are_right_with_any_settings(model, settings):
    """By all ways through the binding: as a batch, and into a client's memory."""
    runtime = open_runtime("onnxruntime", threads=1, onnxruntime=OnnxRuntimeSettings(**settings))
    slot = runtime.load(model).open_slot()
    assert slot.run([{"x": ROW}])[0]["y"].tolist() == ROW.tolist()
    rows = np.arange(MIN_PLACED_BYTES // 4, dtype=np.float32).reshape(-1, 4)
    area = np.zeros(rows.nbytes, np.uint8)
    for _ in range(3):
        np.testing.assert_array_equal(slot.run_into({"x": rows}, area, area.ctypes.data)["y"], rows)


def test_an_arena_that_shrinks_says_so_for_each_run():
    """The entry by which ONNX Runtime knows it stands in the options of every run, where there is an arena."""
    entry = "memory.enable_memory_arena_shrinkage"
    options = Sessions(1, OnnxRuntimeSettings(shrink_arena=True)).run_options
    assert options is not None
    assert options.get_run_config_entry(entry) == "cpu:0"
    assert Sessions(1, OnnxRuntimeSettings(shrink_arena=True, memory_arena=False)).run_options is None


def test_a_provider_that_the_package_lacks_is_refused():
    """The message names it, the version, and what there is."""
    with pytest.raises(InvalidConfig, match=rf"ONNX Runtime {ort.__version__} has no {CUDA}; it has .*{CPU_PROVIDER}"):
        Sessions(1, OnnxRuntimeSettings(providers=(CUDA, CPU_PROVIDER)))


def test_a_provider_that_does_not_start_is_refused(model, monkeypatch):
    """ONNX Runtime would quietly go on with the next one; here nobody wonders why a model is slow."""
    monkeypatch.setattr(onnx_session, "check_providers", lambda _: None)
    sessions = Sessions(1, OnnxRuntimeSettings(providers=(CUDA, CPU_PROVIDER)))
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(InvalidConfig, match=f"{CUDA} cannot be"):
        sessions.open(model)


def test_options_of_a_provider_that_is_not_asked_for_are_refused():
    """Most likely one of the two names is mistyped."""
    settings = OnnxRuntimeSettings(provider_options=((CUDA, (("device_id", "0"),)),))
    with pytest.raises(InvalidConfig, match=f"{CUDA} is not among"):
        Sessions(1, settings)


def test_a_library_that_others_could_change_is_no_code_of_ours(tmp_path):
    """As with plugins: the file and what is above it belong to root or to us, and nobody else may write."""
    path = tmp_path / "ops.so"
    path.write_bytes(b"no library")
    path.chmod(0o666)
    with pytest.raises(InvalidConfig, match=r"custom_op_libraries: .*ops\.so can be written by everyone"):
        Sessions(1, OnnxRuntimeSettings(custom_op_libraries=(str(path),)))
    path.chmod(0o644)
    with pytest.raises(InvalidConfig, match=r"custom_op_libraries: .*ops\.so: .*(invalid ELF|file too short)"):
        Sessions(1, OnnxRuntimeSettings(custom_op_libraries=(str(path),)))
    with pytest.raises(InvalidConfig, match="no such file"):
        Sessions(1, OnnxRuntimeSettings(custom_op_libraries=(f"{path}.2",)))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_library_with_operators_is_loaded(tmp_path, model):
    """Its one function is called, and what it says counts."""
    source, library, seen = tmp_path / "ops.c", tmp_path / "ops.so", tmp_path / "seen"
    source.write_text(
        f'#include <stdio.h>\nvoid *RegisterCustomOps(void *o, void *a) {{ fclose(fopen("{seen}", "w")); return 0; }}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    sessions = Sessions(1, OnnxRuntimeSettings(custom_op_libraries=(str(library),)))
    assert seen.exists()
    assert sessions.open(model).run(None, {"x": ROW})[0].tolist() == ROW.tolist()


def test_the_reason_is_at_the_end_of_the_message(tmp_path):
    """However long the path is, the message says what is wrong with the file."""
    directory = tmp_path / ("d" * 200)
    directory.mkdir()
    path = directory / "model.onnx"
    node, value = onnx_models.node("Neg", ["x"], ["y"]), onnx_models.value
    path.write_bytes(onnx_models.make_model([node], [value("x", [4])], [value("y", [4])], ir_version=99))
    with pytest.raises(InvalidConfig) as caught:
        Sessions(1, OnnxRuntimeSettings()).open(make_model_settings(path))
    assert "Unsupported model IR version: 99, max supported IR version" in caught.value.message


@pytest.mark.parametrize(
    ("make", "reason"), [(os.mkfifo, "is a named pipe"), (Path.mkdir, "is a directory"), (lambda _: None, "no such")]
)
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path, make, reason):
    """A named pipe would keep its reader for ever."""
    make(tmp_path / "m.onnx")
    with pytest.raises(InvalidConfig, match=reason):
        Sessions(1, OnnxRuntimeSettings()).open(make_model_settings(tmp_path / "m.onnx"))
