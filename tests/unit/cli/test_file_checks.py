"""Files that a configuration names: what cannot be served is told before anybody tries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import onnx
import pytest

from tests.support.config import MODEL, ConfigDir
from tests.support.plans import make_plan
from trtd.cli.file_checks import file_problems
from trtd.cli.main import main
from trtd.demo.models import mlp

PLAN = '[tenants.a]\nruntime = "tensorrt"\n[tenants.a.models.m]\npath = "m.plan"\n'


@pytest.fixture
def config_dir(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path)


def told(config_dir: ConfigDir, toml: str) -> list[str]:
    """The problems with files, one line each, as `config check` prints them."""
    loaded = config_dir.load(toml)
    return [one.line(loaded.origins).replace(f"{config_dir.etc}/", "") for one in file_problems(loaded.config)]


def test_files_that_are_none(config_dir):
    """What is missing, empty, or no regular file is told by its tenant's key; nobody waits for a named pipe."""
    config_dir.write("etc/good.onnx", mlp(1))
    config_dir.write("etc/empty.onnx", "")
    (config_dir.etc / "dir.onnx").mkdir()
    os.mkfifo(config_dir.etc / "pipe.onnx")
    paths = ["good.onnx", "empty.onnx", "dir.onnx", "pipe.onnx", "gone.onnx", "/dev/zero"]
    toml = "".join(f'[tenants.t{index}]\nmodels.m.path = "{path}"\n' for index, path in enumerate(paths))
    config_dir.write("etc/tenants.d/t0.toml", 'models.m.probe.path = "p.npz"')
    assert told(config_dir, toml) == [
        "tenants.d/t0.toml:1: tenants.t0.models.m.probe.path: tenants.d/p.npz: no such file or directory",
        "trtd.toml:4: tenants.t1.models.m.path: empty.onnx: is empty",
        "trtd.toml:6: tenants.t2.models.m.path: dir.onnx: is a directory",
        "trtd.toml:8: tenants.t3.models.m.path: pipe.onnx: is a named pipe",
        "trtd.toml:10: tenants.t4.models.m.path: gone.onnx: no such file or directory",
        "trtd.toml:12: tenants.t5.models.m.path: /dev/zero: is a device",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x", "a number at 1 does not end"),
        (b"<html><body>404</body></html>\n" * 50, "it is no ONNX model: "),
        (b"\x08\x01", "it has no graph"),
        (mlp(1)[:-50], "is longer than what holds it"),
        (mlp(1), None),
        (b"\x20\x00\x00\x00ORTM" + bytes(100), None),
    ],
)
def test_what_is_no_onnx_model(config_dir, content, reason):
    """A page of an error, half a download; a model, and one in ONNX Runtime's own format, are let pass."""
    config_dir.write("etc/m.onnx", content)
    problems = told(config_dir, MODEL)
    assert len(problems) == (reason is not None)
    assert reason is None or reason in problems[0]


def test_weights_that_are_not_there(config_dir):
    """An ONNX model whose weights were left behind is told with the name of their file."""
    model = onnx.load_from_string(mlp(1))
    onnx.save(model, config_dir.etc / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    assert told(config_dir, MODEL) == []
    (config_dir.etc / "w.data").unlink()
    assert told(config_dir, MODEL) == [
        "trtd.toml:2: tenants.a.models.m.path: m.onnx: its weights in w.data: no such file or directory"
    ]


@pytest.mark.parametrize(
    ("content", "more", "reason"),
    [
        (mlp(1), "", "it is no TensorRT plan"),
        (b"ftrt", "", "it has 4 bytes"),
        (make_plan()[:-1], "", "it is truncated"),
        (make_plan(magic=b"vtrt"), "", "it is a plan of TensorRT-RTX, and the tenant's runtime is tensorrt"),
        (make_plan(), "[tenants.a.tensorrt]\nhard_bytes = 199", "it has 200 bytes of weights, and tensorrt.hard_bytes"),
        (make_plan(), "[tenants.a.tensorrt]\nhard_bytes = 200", None),
        (make_plan(), "[tenants.a.tensorrt]\nhard_bytes = 9\nstreamed_weights_bytes = 1", None),
        (make_plan(), "", None),
    ],
)
def test_what_is_no_plan(config_dir, content, more, reason):
    """Told from the plan's header, with the watermark that its weights alone would pass."""
    config_dir.write("etc/m.plan", content)
    problems = told(config_dir, PLAN + more)
    assert len(problems) == (reason is not None)
    assert reason is None or reason in problems[0]


def test_a_limit_that_the_models_do_not_fit_in(config_dir):
    """A worker that needs more than its limit for its files would be replaced for ever."""
    size = len(mlp(1))
    config_dir.write("etc/m.onnx", mlp(1))
    assert told(config_dir, f"{MODEL}[tenants.a.memory]\nlimit_bytes = {size}") == []
    assert told(config_dir, f"{MODEL}[tenants.a.memory]\nlimit_bytes = {size - 1}") == [
        f"trtd.toml:4: tenants.a.memory.limit_bytes: is {size - 1}, and the files of the models have {size} bytes"
    ]


def test_what_stands_beside_a_model(config_dir):
    """Probes and warm-up inputs are archives, libraries are libraries."""
    config_dir.write("etc/m.onnx", mlp(1))
    config_dir.write("etc/text", "text")
    toml = (
        f'{MODEL}warm_up_inputs = ["text"]\nprobe.path = "text"\n'
        f'[tenants.a.onnxruntime]\ncustom_op_libraries = ["{sys.executable}", "text"]\n'
    )
    assert told(config_dir, toml) == [
        "trtd.toml:6: tenants.a.onnxruntime.custom_op_libraries: text: it is no library for Linux",
        "trtd.toml:3: tenants.a.models.m.warm_up_inputs: text: it is no .npz file",
        "trtd.toml:4: tenants.a.models.m.probe.path: text: it is no .npz file",
    ]


def test_a_secret_key_that_others_can_read(config_dir):
    """The router's secret key file must be the daemon's alone."""
    key = config_dir.write("etc/key", "x" * 40)
    toml = '[router]\ncurve_secret_key_file = "key"\n'
    key.chmod(0o640)
    where = "trtd.toml:2: router.curve_secret_key_file: key:"
    assert told(config_dir, toml) == [f"{where} holds a secret and is open to others (mode 0640); make it 0600"]
    key.chmod(0o600)
    assert told(config_dir, toml) == []
    key.unlink()
    assert told(config_dir, toml) == [f"{where} no such file or directory"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_say_so(config_dir):
    """A model or a configuration file that this user may not read is told with that reason."""
    config_dir.write("etc/m.onnx", mlp(1)).chmod(0)
    assert [line.rpartition(": ")[2] for line in told(config_dir, MODEL)] == ["permission denied"]
    (config_dir.etc / "trtd.toml").chmod(0)
    assert config_dir.problems() == ["trtd.toml: cannot be read: permission denied"]


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, os.mkfifo, Path.touch, lambda path: path.write_text("x")])
def test_a_model_by_hand_is_refused_at_once(tmp_path, capsys, make):
    """`serve --model` of a file that cannot be served is one line and 78, and starts nothing."""
    make(tmp_path / "nope.onnx")
    runtime_dir = tmp_path / "run"
    argv = ["serve", "--model", f"m={tmp_path / 'nope.onnx'}", "--runtime-dir", str(runtime_dir)]
    assert main(argv) == 78
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines()), runtime_dir.exists()) == ("", 1, False)
    assert told.err.startswith(
        f"trtd: invalid_config: flag --model: tenants.default.models.m.path: {tmp_path}/nope.onnx: "
    )


def test_config_check_ends_with_78(config_dir, capsys):
    """What cannot serve is told line by line, and scripts see it from the exit code."""
    config_dir.write("etc/m.onnx", mlp(1))
    path = config_dir.write("etc/trtd.toml", MODEL)
    assert main(["config", "check", "--config", str(path)]) == 0
    (config_dir.etc / "m.onnx").unlink()
    assert main(["config", "check", "--config", str(path)]) == 78
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"valid: 1 tenants, from {path}; but what they name cannot be used:",
        f"{path}:2: tenants.a.models.m.path: {config_dir.etc}/m.onnx: no such file or directory",
    ]
