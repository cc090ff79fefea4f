"""Scripts: what a test or a chaos run asks for is what happens."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.support.worker import make_model_settings, write_script
from trtd.core.faults import ProcessFault
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory
from trtd.runtime import open_runtime, scripted
from trtd.wire.messages import Dtype

CALM = np.ones((1, 4), np.float32)
POISON = np.full((1, 4), 666, np.float32)


def load(path, **fields):
    return open_runtime("scripted", threads=1).load(make_model_settings(path, **fields))


def test_identity_gives_back_each_request(tmp_path):
    """A script without a behaviour answers each request of a batch with its own input, under the output's name."""
    model = load(write_script(tmp_path / "m.json"))
    assert model.description.inputs[0].dtype is Dtype.FLOAT32
    assert model.description.is_batched
    answers = model.open_slot().run([{"x": CALM}, {"x": POISON}])
    np.testing.assert_array_equal(answers[0]["y"], CALM)
    np.testing.assert_array_equal(answers[1]["y"], POISON)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("fault", ProcessFault),
        ("model_failed", ModelFailed),
        ("out_of_memory", OutOfMemory),
        ("raise", RuntimeError),
    ],
)
def test_poison_triggers_and_nothing_else_does(tmp_path, behaviour, error):
    """With `when`, only a batch with a request of that first element meets the behaviour; warm-up never does."""
    model = load(write_script(tmp_path / "m.json", behaviour=behaviour, when={"value": 666}))
    slot = model.open_slot()
    for inputs in model.warm_up_inputs():
        slot.run([inputs])
    slot.run([{"x": CALM}])
    slot.run([{"x": np.zeros((0, 4), np.float32)}])
    with pytest.raises(error):
        slot.run([{"x": CALM}, {"x": POISON}])


@pytest.mark.parametrize(("behaviour", "status"), [("crash", -11), ("exit", 3)])
def test_processes_really_end(tmp_path, behaviour, status):
    """A crash is a real SIGSEGV and an exit has the script's code."""
    path = write_script(tmp_path / "m.json", behaviour=behaviour, exit_code=3)
    code = f"""
import numpy as np
from tests.unit.runtime.test_scripted import load, CALM
load({str(path)!r}).open_slot().run([{{"x": CALM}}])
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True).returncode == status


def test_a_leak_keeps_memory(tmp_path):
    """Each run of a leak keeps as many bytes as the script says."""
    slot = load(write_script(tmp_path / "m.json", behaviour="leak", bytes=1024)).open_slot()
    try:
        slot.run([{"x": CALM}])
        slot.run([{"x": CALM}])
        assert sum(map(len, scripted.leaked)) == 2048
    finally:
        scripted.leaked.clear()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"behaviour": "dance"}, "unknown behaviour 'dance'"),
        ({"behavior": "crash"}, "unknown keys: behavior"),
        ({"inputs": []}, "at least one input"),
        ({"outputs": ["a", "b"]}, "as many outputs"),
        ({"inputs": [{"name": "x"}]}, "dtype"),
        ({"behaviour": "fail_load"}, "cannot be loaded"),
    ],
)
def test_bad_scripts_say_what_is_wrong(tmp_path, fields, text):
    """A script that cannot be played is refused at load, naming file and reason."""
    path = write_script(tmp_path / "m.json", **fields)
    with pytest.raises(InvalidConfig, match=text) as caught:
        load(path)
    assert str(path) in caught.value.message


def test_files_that_are_no_script_are_refused(tmp_path):
    """A missing file and one that is no JSON are refused, naming the file."""
    with pytest.raises(InvalidConfig, match="No such file"):
        load(tmp_path / "nowhere.json")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(InvalidConfig, match="not a script"):
        load(tmp_path / "m.json")
