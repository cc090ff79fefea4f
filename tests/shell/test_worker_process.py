"""A real worker process: first words, readiness, faults, memory, hangs, the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.router_end import RouterEnd
from tests.support.worker import make_model_settings, make_worker_settings, write_script
from tests.support.worker_process import SpawnedWorker
from trtd.core.faults import FaultKind
from trtd.demo import models
from trtd.errors import Blame, ErrorCode, ExitCode
from trtd.wire.control import AskBeat, FaultReport, Hello, Stop, WorkerBeat, WorkerReady
from trtd.wire.settings import ProbeSettings

CALM = {"x": np.ones((1, 4), np.float32)}
POISON = {"x": np.full((1, 4), 666, np.float32)}


@pytest.fixture
def address(tmp_path):
    """Where the router's end listens."""
    return f"{tmp_path}/workers.sock"


@pytest.fixture
def router(address):
    """The router's end."""
    with RouterEnd(address) as router:
        yield router


@pytest.fixture
def settings(tmp_path, address):
    """Settings of a worker with one scripted model."""

    def settings(worker=None, **script):
        model = make_model_settings(write_script(tmp_path / "m.json", **script))
        return make_worker_settings(model, router_path=address, **(worker or {}))

    return settings


def start_ready(router, settings) -> SpawnedWorker:
    worker = SpawnedWorker(settings)
    worker.wait_for(WorkerReady)
    router.attached()
    return worker


def test_hello_then_ready_then_work_then_the_end(router, settings):
    """A worker says hello with its pid, becomes ready with its models, attaches, answers, beats, and stops with 0."""
    with SpawnedWorker(settings()) as worker:
        hello = worker.wait_for(Hello)
        assert isinstance(worker.messages[0], Hello)
        assert (hello.generation, hello.pid) == (1, worker.process.pid)
        assert worker.spawned_at < hello.main_at < time.monotonic()
        ready = worker.wait_for(WorkerReady)
        assert ready.runtime == "scripted 1"
        assert [(model.name, model.version) for model in ready.models] == [("m", "1")]
        assert router.attached().models == ready.models
        assert router.ask(CALM).code is None
        beat = worker.wait_for(WorkerBeat, where=lambda beat: beat.progress == 1)
        assert beat.in_flight == 0
        assert 1 << 20 < beat.rss_bytes <= beat.peak_rss_bytes
        worker.channel.send(Stop())
        assert worker.ended() == ExitCode.OK


def test_onnx_models_are_served(router, address, tmp_path):
    """A worker of the ONNX runtime names it and serves several models, of which one has a known answer."""
    cnn, mlp, known = tmp_path / "cnn.onnx", tmp_path / "mlp.onnx", tmp_path / "known.npz"
    cnn.write_bytes(models.cnn(1))
    mlp.write_bytes(models.identity(dims=(4,)))
    np.savez(known, **{"in.x": CALM["x"], "out.y": CALM["x"]})
    served = (
        make_model_settings(cnn, name="cnn"),
        make_model_settings(mlp, name="mlp", probe=ProbeSettings(str(known), 0, 0)),
    )
    with SpawnedWorker(make_worker_settings(*served, router_path=address, runtime="onnxruntime")) as worker:
        ready = worker.wait_for(WorkerReady)
        assert ready.runtime.startswith("onnxruntime 1.")
        router.attached()
        assert router.ask(CALM, model="mlp").outputs["y"].tolist() == [[1, 1, 1, 1]]
        scores = router.ask({"image": np.ones((2, 3, 32, 32), np.float32)}, model="cnn").outputs["scores"]
        np.testing.assert_allclose(scores.sum(axis=1), [1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("script", "worker", "kind", "code"),
    [
        ({"behaviour": "fail_load"}, {}, FaultKind.BAD_MODEL, ExitCode.BAD_DATA),
        ({"inputs": "nonsense"}, {}, FaultKind.BAD_MODEL, ExitCode.BAD_DATA),
        ({}, {"runtime": "abacus"}, FaultKind.BAD_CONFIG, ExitCode.BAD_CONFIG),
        ({"outputs": ["line\nbreak"]}, {}, FaultKind.BAD_MODEL, ExitCode.BAD_DATA),
    ],
)
def test_what_cannot_be_loaded_is_a_permanent_fault(router, settings, script, worker, kind, code):
    """A bad model or configuration is reported as permanent, with the reason, and the exit code says the same."""
    with SpawnedWorker(settings(worker, **script)) as spawned:
        fault = spawned.wait_for(FaultReport).fault
        assert (fault.kind, fault.permanent) == (kind, True)
        assert "\n" not in fault.message
        assert spawned.ended() == code
        assert not any(isinstance(message, WorkerReady) for message in spawned.messages)


def test_a_wrong_known_answer_keeps_a_worker_from_ready(router, address, tmp_path):
    """A model that answers its probe wrongly is never ready: a permanent fault that shows both values."""
    known = tmp_path / "known.npz"
    np.savez(known, **{"in.x": CALM["x"], "out.y": CALM["x"] * 2})
    model = make_model_settings(write_script(tmp_path / "m.json"), probe=ProbeSettings(str(known), 1e-4, 1e-3))
    with SpawnedWorker(make_worker_settings(model, router_path=address)) as worker:
        fault = worker.wait_for(FaultReport).fault
        assert (fault.kind, fault.permanent) == (FaultKind.PROBE_FAILED, True)
        assert "got 1.0, expected 2.0" in fault.message
        assert worker.ended() == ExitCode.BAD_DATA


def test_a_reason_of_any_length_is_told(router, address, tmp_path):
    """A worker whose reason to end is longer than a packet still tells it, cut in its middle, and ends."""
    known = tmp_path / "known.npz"
    np.savez(known, **{f"in.{number}{'n' * 50_000}": CALM["x"] for number in range(4)})
    model = make_model_settings(write_script(tmp_path / "m.json"), probe=ProbeSettings(str(known), 0, 0))
    with SpawnedWorker(make_worker_settings(model, router_path=address)) as worker:
        fault = worker.wait_for(FaultReport).fault
        assert fault.permanent
        assert "..." in fault.message
        assert worker.ended() in (ExitCode.BAD_DATA, ExitCode.BAD_CONFIG)


def test_a_process_that_is_not_sound_answers_nothing(router, settings):
    """After a fault in a run the worker reports it and leaves with 75, and answers nothing any more."""
    with start_ready(router, settings(behaviour="fault", when={"value": 666})) as worker:
        router.send(router.lease(POISON), router.lease(CALM))
        assert worker.wait_for(FaultReport).fault.kind is FaultKind.CRASHED
        assert worker.ended() == ExitCode.TEMPORARY
        assert router.is_silent()


@pytest.mark.parametrize(("behaviour", "status"), [("crash", -signal.SIGSEGV), ("exit", 1)], ids=["crash", "exit"])
def test_poison_ends_the_process_as_it_says(router, settings, behaviour, status):
    """A crash is a crash and an exit an exit, for the poisonous input only."""
    with start_ready(router, settings(behaviour=behaviour, when={"value": 666})) as worker:
        assert router.ask(CALM).code is None
        router.send(router.lease(POISON))
        assert worker.ended() == status


BABBLE: dict[str, Callable[[RouterEnd], None]] = {
    "noise for a header": lambda router: router.send_frames([b"garbage", b"more"]),
    "an empty message": lambda router: router.send_frames([]),
    "another generation": lambda router: router.send(router.lease(CALM), generation=2),
    "noise for a stream": lambda router: router.send_bytes(b"\xff" * 64),
}


@pytest.mark.parametrize("babble", BABBLE.values(), ids=BABBLE)
def test_a_router_that_makes_no_sense_ends_the_process(router, settings, babble):
    """What cannot be read may have been requests: the worker leaves, and the supervisor gives them to its successor."""
    with start_ready(router, settings()) as worker:
        assert router.ask(CALM).code is None
        babble(router)
        fault = worker.wait_for(FaultReport).fault
        assert (fault.kind, fault.blame, fault.permanent) == (FaultKind.EXITED, Blame.DAEMON, False)
        assert "a message of the router cannot be read" in fault.message
        assert worker.ended() == ExitCode.INTERNAL


def test_memory_above_the_limit_is_a_fault_with_figures(router, settings):
    """A worker that leaks past its limit says so, with both figures, and leaves with 75."""
    limit = 256 * 1024 * 1024
    script = {"behaviour": "leak", "bytes": 48 * 1024 * 1024, "when": {"value": 666}}
    with start_ready(router, settings({"memory_limit_bytes": limit}, **script)) as worker:
        assert router.ask(CALM).code is None
        for _ in range(8):
            router.send(router.lease(POISON, must_run_alone=True))
        fault = worker.wait_for(FaultReport).fault
        assert (fault.kind, fault.permanent) == (FaultKind.OUT_OF_MEMORY, False)
        assert f"limit of {limit} bytes" in fault.message
        assert worker.ended() == ExitCode.TEMPORARY


def test_a_hang_stops_progress_and_not_beats(router, settings):
    """While a run hangs in native code, beats go on with one batch in flight and no progress."""
    with start_ready(router, settings(behaviour="hang", when={"value": 666})) as worker:
        assert router.ask(CALM).code is None
        router.send(router.lease(POISON))
        first = worker.wait_for(WorkerBeat, where=lambda beat: beat.in_flight == 1)
        second = worker.wait_for(WorkerBeat)
        assert (first.progress, second.progress, second.in_flight) == (1, 1, 1)


def test_a_hang_that_holds_the_interpreter_stops_beats(router, settings):
    """While native code keeps the interpreter, no beat comes any more."""
    with start_ready(router, settings(behaviour="hang_holding_gil", when={"value": 666})) as worker:
        router.send(router.lease(POISON))
        # Beats that were sent before the hang may still be on their way: wait until a second passes without one.
        silent_since = time.monotonic()
        deadline = silent_since + 20
        while time.monotonic() - silent_since < 1.0:
            assert time.monotonic() < deadline
            if worker.channel.receive(wait=False) is not None:
                silent_since = time.monotonic()
            time.sleep(0.01)
        assert worker.process.poll() is None


FREEZE = """
import gc, runpy, sys
from trtd.worker.loop import Loop
serve = Loop.serve
def tell_and_serve(loop, slots=None):
    is_seen = any(one is loop or one is sys.modules for one in gc.get_objects())
    print("collections look at", "everything" if is_seen else "what comes", file=sys.stderr, flush=True)
    serve(loop, slots)
Loop.serve = tell_and_serve
runpy.run_module("trtd.worker.main", run_name="__main__", alter_sys=True)
"""
"""A worker that tells, when it begins to serve, whether a full collection would look at what it has loaded."""


def test_collections_do_not_look_at_what_was_loaded(settings):
    """Once a worker serves, modules and models are out of the collector's sight: a request must not wait for a look."""
    with SpawnedWorker(settings(), ("-c", FREEZE)) as worker:
        worker.wait_for(WorkerReady)
        worker.channel.send(Stop())
        assert worker.ended() == ExitCode.OK
        assert "collections look at what comes" in worker.said()


SHORT_OF = """
import runpy
from trtd import errors
from trtd.runtime.scripted import ScriptedModel
open_slot, opened = ScriptedModel.open_slot, []
def open_or_fail(model):
    opened.append(model)
    if len(opened) == {number}:
        raise {error}
    return open_slot(model)
ScriptedModel.open_slot = open_or_fail
runpy.run_module("trtd.worker.main", run_name="__main__", alter_sys=True)
"""
"""A worker of which one slot cannot be opened."""


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("error", "kind", "permanent", "code"),
    [
        ("errors.OutOfMemory('no room')", FaultKind.OUT_OF_MEMORY, False, ExitCode.TEMPORARY),
        ("MemoryError()", FaultKind.OUT_OF_MEMORY, False, ExitCode.TEMPORARY),
        ("errors.ModelFailed('it is ill')", FaultKind.BAD_MODEL, True, ExitCode.BAD_DATA),
        ("errors.InvalidConfig('it is wrong')", FaultKind.BAD_CONFIG, True, ExitCode.BAD_CONFIG),
        ("errors.Overloaded('it is busy')", FaultKind.TEMPORARY, False, ExitCode.TEMPORARY),
    ],
    ids=["no room", "no host memory", "bad model", "bad configuration", "worth a retry"],
)
def test_every_slot_is_judged_alike(settings, number, error, kind, permanent, code):
    """What keeps a slot from being opened is the same fault in the first slot as in the others."""
    program = ("-c", SHORT_OF.format(number=number, error=error))
    with SpawnedWorker(settings({"slots": 3}), program) as worker:
        fault = worker.wait_for(FaultReport).fault
        assert (fault.kind, fault.permanent) == (kind, permanent)
        assert worker.ended() == code


ILL_MAIN_THREAD = """
import runpy
from trtd.worker import process
def read_resident():
    raise MemoryError
process.read_resident = read_resident
runpy.run_module("trtd.worker.main", run_name="__main__", alter_sys=True)
"""


def test_the_thread_that_beats_is_judged_too(settings):
    """Want of memory in the thread that keeps the channel is told like any other."""
    with SpawnedWorker(settings(), ("-c", ILL_MAIN_THREAD)) as worker:
        assert worker.wait_for(FaultReport).fault.kind is FaultKind.OUT_OF_MEMORY
        assert worker.ended() == ExitCode.TEMPORARY


@pytest.mark.parametrize("when", ["loading", "serving"])
def test_stop_is_obeyed_at_any_time(router, settings, when):
    """Stop ends a worker with 0 while it loads as well as while it serves."""
    script = {"behaviour": "slow_load", "seconds": 3600} if when == "loading" else {}
    with SpawnedWorker(settings(**script)) as worker:
        worker.wait_for(WorkerBeat if when == "loading" else WorkerReady)
        worker.channel.send(Stop())
        assert worker.ended() == ExitCode.OK


@pytest.mark.parametrize("slots", [1, 2])
def test_stop_waits_for_what_was_received(router, settings, slots):
    """Requests that the worker holds when Stop comes are answered before it ends, though other slots are idle."""
    with start_ready(router, settings({"slots": slots}, behaviour="sleep", seconds=0.2)) as worker:
        router.send(*[router.lease(CALM) for _ in range(3)])
        worker.wait_for(WorkerBeat, where=lambda beat: beat.in_flight == 1)
        worker.channel.send(Stop())
        assert all(got.code is None for got in router.results(3).values())
        assert worker.ended() == ExitCode.OK


def test_the_last_answer_leaves_whole(router, address, tmp_path):
    """An answer of many megabytes, given just before the end, arrives whole."""
    model = make_model_settings(write_script(tmp_path / "m.json", behaviour="sleep", seconds=0.2), max_batch=1 << 21)
    with start_ready(router, make_worker_settings(model, router_path=address)) as worker:
        leased = router.lease({"x": np.ones((1 << 21, 4), np.float32)})
        router.send(leased)
        worker.wait_for(WorkerBeat, where=lambda beat: beat.in_flight == 1)
        worker.channel.send(Stop())
        assert router.results(1)[leased.entry.lease].outputs["y"].shape == (1 << 21, 4)
        assert worker.ended() == ExitCode.OK


@pytest.mark.parametrize("when", ["loading", "serving", "hanging"])
def test_a_closed_channel_ends_the_worker(router, settings, when):
    """A worker whose supervisor is gone leaves at once, whatever it does."""
    script = {
        "loading": {"behaviour": "slow_load", "seconds": 3600},
        "serving": {},
        "hanging": {"behaviour": "hang", "when": {"value": 666}},
    }[when]
    with SpawnedWorker(settings(**script)) as worker:
        worker.wait_for(WorkerBeat if when == "loading" else WorkerReady)
        if when == "hanging":
            router.attached()
            router.send(router.lease(POISON))
            worker.wait_for(WorkerBeat, where=lambda beat: beat.in_flight == 1)
        worker.channel.close()
        assert worker.ended() == ExitCode.TEMPORARY


def test_a_defect_goes_to_the_log_and_not_to_the_client(router, settings):
    """An exception that nobody expects is INTERNAL for the client and a trace in the log, but not once per request."""
    with start_ready(router, settings(behaviour="raise", when={"value": 666})) as worker:
        for _ in range(20):
            got = router.ask(POISON)
        assert got.code == ErrorCode.INTERNAL
        assert "defect" not in got.answer.message
        assert router.ask(CALM).code is None
        worker.channel.send(Stop())
        worker.ended()
        said = worker.said()
        assert "a defect in the script's runtime" in said
        assert said.count("defect_caught") < 20


def test_a_worker_outlives_its_router(address, settings):
    """When the router dies and comes back, the same worker process attaches again at once and serves."""
    first = RouterEnd(address)
    # Beats are so rare here that attaching cannot have waited for one.
    with start_ready(first, settings({"beat_every_s": 60.0})) as worker:
        assert first.ask(CALM).code is None
        first.close()
        with RouterEnd(address) as second:
            second.attached()
            assert second.ask(CALM).code is None
        assert os.getpgid(worker.process.pid) == worker.process.pid
        assert worker.process.poll() is None


def test_a_worker_without_work_rests_and_says_when_that_ends(router, settings):
    """Its beats become rare; it gives one when it is asked, and one before the first batch, which may never end."""
    told = settings(behaviour="hang_holding_gil", when={"value": 666}, worker={"idle_beat_every_s": 60.0})
    with SpawnedWorker(told) as worker:
        worker.wait_for(WorkerReady)
        router.attached()
        worker.wait_for(WorkerBeat, where=lambda beat: beat.is_resting)
        worker.channel.send(AskBeat())
        assert worker.wait_for(WorkerBeat).is_resting
        router.send(router.lease(POISON))
        woken = worker.wait_for(WorkerBeat)
        assert (woken.is_resting, woken.in_flight) == (False, 1)
