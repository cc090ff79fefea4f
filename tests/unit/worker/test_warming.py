"""What is run before a worker is ready: what was given, what is made up, and the known answer in every slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.support.graphs import INT64, graph, node, value
from tests.support.worker import make_model_settings, make_worker_settings, write_script
from trtd.core.batching import FORCED, PROVEN
from trtd.core.faults import FaultKind, ProcessFault
from trtd.demo import models
from trtd.runtime import open_runtime
from trtd.runtime.onnxruntime import OnnxModel
from trtd.runtime.scripted import ScriptedModel
from trtd.wire.settings import ProbeSettings, Trial
from trtd.worker import warming
from trtd.worker.load import Loaded, load
from trtd.worker.probe import sizes
from trtd.worker.trials import Teller
from trtd.worker.validate import ServedModel
from trtd.worker.warming import Warmer

MIXING = graph([node("Softmax", ["x"], ["y"], axis=0)], [value("x", ("n", 4))], [value("y", ("n", 4))])


class Told:
    """What the supervisor and the log are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[tuple[str, str]] = []
        self.ended: list[Trial] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.teller = Teller(lambda model, key: self.begun.append((model, key)), self.ended.append)
        monkeypatch.setattr(warming, "log", self)

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info


@pytest.fixture
def told(monkeypatch):
    return Told(monkeypatch)


@pytest.fixture
def runs(monkeypatch):
    """Requests of each run of ONNX Runtime, in order."""
    seen: list[Sequence[Any]] = []
    opened = OnnxModel.open_slot

    def open_slot(self):
        slot = opened(self)
        run = slot.run

        def noted(requests):
            seen.append(requests)
            return run(requests)

        slot.run = noted
        return slot

    monkeypatch.setattr(OnnxModel, "open_slot", open_slot)
    return seen


@pytest.fixture
def load_onnx(tmp_path, told):
    """Load an ONNX model as a worker does that knows these trials."""

    def load_onnx(data: bytes, trials: tuple[Trial, ...] = (), slots: int = 1, **fields: Any) -> Loaded:
        path = tmp_path / "m.onnx"
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        model = make_model_settings(path, **fields)
        return load(make_worker_settings(model, runtime="onnxruntime", trials=trials, slots=slots), told.teller)

    return load_onnx


@pytest.fixture
def given(tmp_path):
    """A file with one request."""

    def given(**inputs: np.ndarray) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **{f"in.{name}": array for name, array in inputs.items()})
        return str(path)

    return given


def batching(loaded: Loaded) -> str:
    return loaded.catalogue.models[0].description.batching


def audio() -> bytes:
    """Samples, of which it needs at least 400."""
    nodes = [
        node("Unsqueeze", ["audio", "axes"], ["a"]),
        node("Conv", ["a", "w"], ["c"]),
        node("Squeeze", ["c"], ["y"]),
    ]
    weights = {"w": np.ones((1, 1, 400), np.float32), "axes": np.array([0, 1])}
    return graph(nodes, [value("audio", ("samples",))], [value("y", ("windows",))], weights)


def reshaped() -> bytes:
    """A shape as an input."""
    return graph(
        [node("Reshape", ["x", "shape"], ["y"])], [value("x", (2, 3)), value("shape", (2,), INT64)], [value("y", None)]
    )


def rows() -> bytes:
    """Rows by their numbers, of one that there is."""
    inputs = [value("x", ("n", 4)), value("i", (1,), INT64)]
    return graph([node("Gather", ["x", "i"], ["y"])], inputs, [value("y", (1, 4))])


@pytest.mark.parametrize("make", [audio, reshaped, rows])
def test_sound_models_that_take_nothing_made_up_serve(load_onnx, told, make):
    """A refusal of what nobody sent is told in the log, and the model serves."""
    loaded = load_onnx(make())
    assert loaded.catalogue.models
    assert [event for event, _ in told.lines].count("worker.warm_up_refused") >= 1


def test_given_inputs_are_the_warm_up(load_onnx, told, given, runs):
    """Each request that an operator gives is run, and what else is tried has its shape and its values."""
    samples = np.sin(np.arange(500, dtype=np.float32))
    load_onnx(audio(), max_batch=1, warm_up_inputs=(given(audio=samples), given(audio=samples[:400])))
    assert [len(run[0]["audio"]) for run in runs[:2]] == [500, 400]
    reshape = given(x=np.ones((2, 3), np.float32), shape=np.array([3, 2]))
    runs.clear()
    load_onnx(reshaped(), warm_up_inputs=(reshape,))
    assert all(run[0]["shape"].tolist() == [3, 2] for run in runs)


def test_warm_up_is_like_the_probe(load_onnx, tmp_path, runs, told):
    """Where there is no other request, the probe's shape is taken for free dimensions, and nothing is refused."""
    x = np.arange(14, dtype=np.float32).reshape(1, 14)
    path = tmp_path / "probe.npz"
    np.savez(path, **{"in.x": x, "out.y": x.reshape(1, 2, 7)})
    data = graph(
        [node("Reshape", ["x", "pairs"], ["y"])],
        [value("x", ("n", "m"))],
        [value("y", ("n", 2, 7))],
        {"pairs": np.array([-1, 2, 7])},
    )
    loaded = load_onnx(data, probe=ProbeSettings(str(path), 0, 0))
    assert batching(loaded) == PROVEN
    assert {run[0]["x"].shape[1] for run in runs} == {14}
    assert "worker.warm_up_refused" not in [event for event, _ in told.lines]


def test_a_file_that_is_no_request_is_bad_config(load_onnx, given, tmp_path):
    """A file of other inputs is a permanent fault that names it."""
    with pytest.raises(ProcessFault) as caught:
        load_onnx(MIXING, warm_up_inputs=(given(z=np.ones(3, np.float32)),))
    fault = caught.value.fault
    assert (fault.kind, fault.permanent) == (FaultKind.BAD_CONFIG, True)
    assert "got inputs 'z', wanted 'x'" in fault.message
    np.savez(tmp_path / "bare.npz", x=np.ones((1, 4), np.float32))
    with pytest.raises(ProcessFault, match=r"wanted an array in\.NAME"):
        load_onnx(MIXING, warm_up_inputs=(str(tmp_path / "bare.npz"),))


def test_off_runs_nothing_but_the_probe(load_onnx, runs, told, tmp_path):
    """Without a warm-up nothing is run, nothing is tried, and so requests run alone; an operator may still insist."""
    assert batching(load_onnx(models.mlp(1), is_warmed_up=False)) == "alone: warm_up is off, so that nothing was shown"
    assert batching(load_onnx(models.mlp(1), is_warmed_up=False, batching="always")) == FORCED
    assert (runs, told.begun, told.ended) == ([], [], [])
    np.savez(tmp_path / "probe.npz", **{"in.x": np.zeros((1, 4), np.float32), "out.y": np.ones((1, 4), np.float32)})
    load_onnx(MIXING, is_warmed_up=False, probe=ProbeSettings(str(tmp_path / "probe.npz"), 0, 0))
    assert len(runs) == 1


# What one worker finds out and another one knows


def test_an_outcome_is_told_and_believed(load_onnx, told, runs):
    """A worker tells what it is about to try and what came of it; one that is told of it tries nothing of it again."""
    for data, word in ((models.mlp(1), PROVEN), (MIXING, "alone: output 'y'")):
        told.begun.clear()
        told.ended.clear()
        first = batching(load_onnx(data))
        assert first.startswith(word)
        (trial,) = told.ended
        assert told.begun == [("m 1", trial.key)]
        assert (trial.batching, trial.is_harmful, len(trial.key)) == (first, False, 64)
        runs.clear()
        assert batching(load_onnx(data, trials=(trial,))) == first
        assert all(len(run) == 1 for run in runs)
        assert len(told.ended) == 1


def test_a_model_that_takes_too_long_runs_alone_for_now(load_onnx, told, monkeypatch):
    """Where the time is over before anything was shown, requests run alone, and the next worker tries again."""
    monkeypatch.setattr(warming, "MAX_SHOWING_S", 0.0)
    description = load_onnx(models.mlp(1)).catalogue.models[0].description
    assert (description.is_batched, description.batching) == (False, "alone: it takes more than 0 s to show anything")
    assert [trial.key for trial in told.ended] == [""]


def test_what_ended_a_worker_is_left_out(load_onnx, told, runs, given):
    """A model whose trial ended a process is run on what was given alone, and its requests run alone."""
    file = given(x=np.ones((1, 4), np.float32))
    load_onnx(MIXING, warm_up_inputs=(file,))
    harmful = Trial(told.ended[0].key, "", is_harmful=True)
    runs.clear()
    loaded = load_onnx(MIXING, trials=(harmful,), warm_up_inputs=(file,))
    assert batching(loaded) == "alone: a worker ended while it was run on inputs that were made up"
    assert [run[0]["x"].tolist() for run in runs] == [[[1, 1, 1, 1]]]


def test_a_trial_holds_for_the_same_file_and_options_only(load_onnx, told, tmp_path, given):
    """Other bytes, another option, a changed warm-up file: each is another key. The same are the same."""
    file = given(x=np.ones((1, 4), np.float32))
    load_onnx(MIXING, warm_up_inputs=(file,))
    load_onnx(MIXING, warm_up_inputs=(file,))
    load_onnx(MIXING)
    load_onnx(MIXING, max_batch=4)
    load_onnx(MIXING + b"\x32\x00", max_batch=4)
    np.savez(file, **{"in.x": np.zeros((1, 4), np.float32)})
    load_onnx(MIXING, warm_up_inputs=(file,))
    keys = [trial.key for trial in told.ended]
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1
    assert all(keys)


# The known answer


class Slot:
    """Doubles, but for the runs and batch sizes in which it is told to be wrong; it settles in two runs."""

    def __init__(self, wrong_run: int = -1, wrong_size: int = -1) -> None:
        self.batches: list[int] = []
        self._wrong_run = wrong_run
        self._wrong_size = wrong_size

    def run(self, requests: Any) -> Any:
        self.batches.append(len(requests))
        is_wrong = len(self.batches) - 1 == self._wrong_run or len(requests) == self._wrong_size
        return [{"y": request["x"] * 2 + is_wrong} for request in requests]

    def settle(self, request: Any) -> None:
        for _ in range(2):
            self.run([request])


@pytest.fixture
def warmer(tmp_path, told, monkeypatch):
    """A model with a known answer, whose slots are those given."""

    def warmer(*slots: Slot, shares_warmth: bool = False, **fields: Any) -> Warmer:
        one = np.ones((1, 4), np.float32)
        np.savez(tmp_path / "probe.npz", **{"in.x": one, "out.y": 2 * one})
        path = write_script(tmp_path / "m.json", behaviour="sleep")
        probe = ProbeSettings(str(tmp_path / "probe.npz"), 0, 0)
        settings = make_model_settings(path, probe=probe, **fields)
        model = open_runtime("scripted", threads=1).load(settings)
        opened = iter(slots)
        monkeypatch.setattr(ScriptedModel, "open_slot", lambda _: next(opened))
        monkeypatch.setattr(ScriptedModel, "shares_warmth", shares_warmth)
        return Warmer(ServedModel(model, settings))

    return warmer


def test_the_known_answer_is_asked_before_and_after_a_slot_has_settled(warmer):
    """In each slot whose runs change their way (a captured graph), and in batches in the first one."""
    slots = [Slot(), Slot(), Slot()]
    opened = warmer(*slots, max_batch=8)
    opened.first_slot()
    opened.next_slot()
    assert [slot.batches for slot in slots] == [[1, 1, 1, 1, 2, 3, 4, 8], [1, 1, 1, 1], []]
    slots = [Slot(), Slot()]
    opened = warmer(*slots, max_batch=8, shares_warmth=True)
    opened.first_slot()
    opened.next_slot()
    assert [slot.batches for slot in slots] == [[1, 2, 3, 4, 8], [1]]


@pytest.mark.parametrize("wrong_run", [0, 3])
@pytest.mark.parametrize("slot", range(3))
def test_a_wrong_answer_in_any_slot_and_any_way_ends_the_worker(warmer, slot, wrong_run):
    """No slot serves, with its graph or without, that gives another answer than the known one."""
    slots = [Slot(wrong_run if number == slot else -1) for number in range(3)]
    opened = warmer(*slots)
    for number in range(slot):
        opened.next_slot() if number else opened.first_slot()
    with pytest.raises(ProcessFault) as caught:
        opened.next_slot() if slot else opened.first_slot()
    assert caught.value.fault.kind is FaultKind.PROBE_FAILED
    assert slots[slot].batches == [1] * (wrong_run + 1)


def test_a_wrong_answer_in_a_batch_ends_the_joining(warmer, told):
    """Requests of a model that is right alone and wrong in a batch are not joined; the log says in which batch."""
    warmer(Slot(wrong_size=4)).first_slot()
    (event, fields) = told.lines[-1]
    assert event == "worker.joins_nothing"
    assert "in a batch of 4 requests" in fields["batching"]


@pytest.mark.parametrize(
    ("most", "wanted"), [(1, []), (2, [2]), (3, [2, 3]), (8, [2, 3, 4, 8]), (20, [2, 3, 4, 8, 16, 20])]
)
def test_sizes_of_batches_that_are_asked(most, wanted):
    """Small ones, powers of two, and the largest."""
    assert sizes(most) == wanted
