"""The slots of a worker over a real socket: batches, refusals, deadlines, several threads, a new router."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

from tests.support.router_end import RouterEnd
from tests.support.worker import make_model_settings, make_worker_settings, write_script
from tests.support.worker_end import WorkerEnd, router_and_worker
from trtd.demo import models
from trtd.errors import ErrorCode


def row(value: float, items: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full((items, 4), value, np.float32)}


@pytest.fixture
def start(tmp_path):
    """Start a router's end and a worker's end with the given models; both are gone afterwards."""
    return partial(router_and_worker, f"{tmp_path}/workers.sock")


@pytest.fixture
def script(tmp_path):
    """Settings of a model that is a script."""

    def script(max_batch=8, max_delay_s=0.0, name="m", version="1", **fields):
        path = write_script(tmp_path / f"{name}-{version}.json", **fields)
        return make_model_settings(path, name=name, version=version, max_batch=max_batch, max_delay_s=max_delay_s)

    return script


@pytest.mark.parametrize("busy_poll_s", [0.0, 0.01])
@pytest.mark.parametrize("slots", [1, 3])
def test_every_request_gets_its_own_answer(start, script, slots, busy_poll_s):
    """Requests sent one by one and many in a message are each answered once, with their own values and ids."""
    with start(script(), slots=slots, busy_poll_s=busy_poll_s) as (router, _):
        for number in range(1, 20):
            got = router.ask(row(number), queue_us=7)
            assert got.code is None
            assert int.from_bytes(got.answer.id, "big") == got.lease
            assert (got.answer.model, got.answer.version, got.answer.generation) == ("m", "1", 1)
            assert got.answer.timing.queue_us == 7
            np.testing.assert_array_equal(got.outputs["y"], row(number)["x"])
        wanted = {}
        for _ in range(6):
            leased = [router.lease(row(number)) for number in range(50)]
            wanted.update({one.entry.lease: number for number, one in enumerate(leased)})
            router.send(*leased)
        for lease, got in router.results(300).items():
            np.testing.assert_array_equal(got.outputs["y"], row(wanted[lease])["x"])


def test_a_slot_does_not_look_for_messages_while_another_one_runs(start, script, monkeypatch):
    """Whoever waits sleeps as long as a batch runs, because looking would take the interpreter from its thread."""
    asked = []

    def sleep_at_once(poll, timeout_s, look, sleep, may_look):
        asked.append(may_look)
        return sleep(timeout_s)

    monkeypatch.setattr("trtd.worker.loop.wait", sleep_at_once)
    with start(script()) as (router, worker):
        router.ask(row(1))
        assert asked[-1]()
        number = worker.loop.progress.begin()
        assert not asked[-1]()
        worker.loop.progress.end(number)
        assert asked[-1]()


def test_requests_of_one_message_run_as_one_batch(start, script):
    """What waits together runs together up to `max_batch`, and its answers leave in one message."""
    with start(script(max_batch=8)) as (router, worker):
        router.send(*[router.lease(row(number)) for number in range(8)])
        router.results(8)
        assert worker.loop.progress.read() == (1, 0)
        assert router.messages == 1
        router.send(*[router.lease(row(number, items=3)) for number in range(4)])
        router.results(4)
        assert worker.loop.progress.read() == (3, 0)


def test_the_first_of_a_batch_waits_for_others(start, script):
    """With `max_delay_s`, a batch stays open for later messages until it is full, and not longer than that."""
    with start(script(max_batch=2, max_delay_s=10)) as (router, worker):
        router.send(router.lease(row(1)))
        router.send(router.lease(row(2)))
        results = router.results(2)
        assert worker.loop.progress.read() == (1, 0)
        assert max(got.answer.timing.batch_us for got in results.values()) < 5e6
    with start(script(max_batch=2, max_delay_s=0.05)) as (router, _):
        assert router.ask(row(1)).answer.timing.batch_us >= 50_000


def test_shapes_and_models_do_not_mix(start, script, tmp_path):
    """Requests of different models or inner shapes that arrive together run apart and are all right."""
    path = tmp_path / "free.onnx"
    path.write_bytes(models.identity(dims=(None,)))
    with start(make_model_settings(path, name="free"), runtime="onnxruntime") as (router, worker):
        leased = [router.lease({"x": np.ones((1, width), np.float32)}, model="free") for width in (2, 3, 2, 3)]
        router.send(*leased)
        shapes = [got.outputs["y"].shape for _, got in sorted(router.results(4).items())]
        assert shapes == [(1, 2), (1, 3), (1, 2), (1, 3)]
        assert worker.loop.progress.read() == (2, 0)


def test_a_real_model_answers_a_batch_as_alone(start, tmp_path):
    """A CNN in ONNX Runtime gives each request of a batch what it gives it alone."""
    path = tmp_path / "cnn.onnx"
    path.write_bytes(models.cnn(5))
    images = np.random.default_rng(1).standard_normal((4, 1, 3, 32, 32)).astype(np.float32)
    with start(make_model_settings(path, name="cnn"), runtime="onnxruntime", slots=2) as (router, _):
        alone = [router.ask({"image": image}, model="cnn").outputs["scores"] for image in images]
        leased = [router.lease({"image": image}, model="cnn") for image in images]
        router.send(*leased)
        results = router.results(4)
        for one, expected in zip(leased, alone, strict=True):
            np.testing.assert_allclose(results[one.entry.lease].outputs["scores"], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (300_000, 4), (4_000_000, 4)])
def test_empty_and_large_tensors_travel(start, script, shape):
    """A tensor without elements and one of any size that the router took come back as they went."""
    sent = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with start(script(max_batch=5_000_000), max_answer_bytes=sent.nbytes + 1) as (router, _):
        np.testing.assert_array_equal(router.ask({"x": sent}).outputs["y"], sent)


def test_a_request_larger_than_a_batch_runs_alone(start, script):
    """More items in one request than `max_batch` are answered, by a run of their own between those of the others."""
    with start(script(max_batch=4)) as (router, worker):
        leased = [router.lease(row(number, items)) for number, items in enumerate((1, 33, 2, 5, 1))]
        router.send(*leased)
        results = router.results(len(leased))
        for number, (one, items) in enumerate(zip(leased, (1, 33, 2, 5, 1), strict=True)):
            np.testing.assert_array_equal(results[one.entry.lease].outputs["y"], row(number, items)["x"])
        assert worker.loop.progress.read() == (5, 0)


def test_an_answer_that_leaves_in_parts_needs_nobody_to_send_it_on(start, script):
    """While another slot waits for requests, an answer that the router reads in parts still leaves to its end."""
    sent = np.zeros((1_000_000, 4), np.float32)
    with start(script(max_batch=1_000_000, behaviour="sleep", seconds=0.3), slots=2) as (router, _):
        np.testing.assert_array_equal(router.ask({"x": sent}).outputs["y"], sent)


def test_versions_are_found_and_the_last_is_the_newest(start, script):
    """A request without a version goes to the last one configured; a version that is asked for answers itself."""
    with start(script(version="9"), script(version="10")) as (router, _):
        assert router.ask(row(1)).answer.version == "10"
        assert router.ask(row(1), version="9").answer.version == "9"


def test_refusals_are_typed_and_harm_nobody(start, script):
    """Each bad request of a message gets its own typed error, and the good one among them its result."""
    with start(script()) as (router, _):
        good = router.lease(row(5))
        cases = [
            (router.lease(row(1), model="other"), ErrorCode.UNKNOWN_MODEL, "m 1"),
            (router.lease(row(1), version="7"), ErrorCode.UNKNOWN_MODEL, "version '7'"),
            (router.lease({"z": row(1)["x"]}), ErrorCode.INVALID_INPUT, "got inputs 'z', wanted 'x'"),
            (router.lease({"x": np.ones((1, 4))}), ErrorCode.INVALID_INPUT, "got float64, wanted float32"),
            (router.lease({"x": np.ones((1, 5), np.float32)}), ErrorCode.INVALID_INPUT, "got shape [1, 5], wanted"),
            (router.lease({"x": np.ones(4, np.float32)}), ErrorCode.INVALID_INPUT, "wanted [?, 4]"),
            (router.lease_frames([good.frames[0], b"short"]), ErrorCode.MALFORMED, "5 bytes"),
            (router.lease_frames(good.frames[:1]), ErrorCode.MALFORMED, "1 tensors"),
            (router.lease_frames([b"\xc1", b""]), ErrorCode.MALFORMED, ""),
        ]
        router.send(good, *[leased for leased, _, _ in cases])
        results = router.results(1 + len(cases))
        assert results[good.entry.lease].code is None
        for leased, code, text in cases:
            got = results[leased.entry.lease]
            assert got.code == got.answer.code == code
            assert text in got.answer.message


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("model_failed", ErrorCode.MODEL_FAILED),
        ("out_of_memory", ErrorCode.OUT_OF_MEMORY),
        ("raise", ErrorCode.INTERNAL),
    ],
)
def test_a_request_that_fails_does_not_fail_its_batch(start, script, behaviour, code):
    """In a batch that fails, the guilty request gets the typed error and every other one its result."""
    with start(script(behaviour=behaviour, when={"value": 666})) as (router, _):
        leased = [router.lease(row(value)) for value in (1, 666, 2)]
        router.send(*leased)
        results = router.results(3)
        assert [results[one.entry.lease].code for one in leased] == [None, code, None]
        np.testing.assert_array_equal(results[leased[2].entry.lease].outputs["y"], row(2)["x"])
        assert "defect" not in results[leased[1].entry.lease].answer.message


def test_suspects_run_apart_from_the_others(start, script):
    """Requests that must run alone share a batch with those of their own message only."""
    with start(script(max_delay_s=0.2)) as (router, worker):
        router.send(
            router.lease(row(1)),
            router.lease(row(2)),
            router.lease(row(3), must_run_alone=True),
            router.lease(row(4), must_run_alone=True),
        )
        router.send(router.lease(row(5), must_run_alone=True))
        assert all(got.code is None for got in router.results(5).values())
        assert worker.loop.progress.read() == (3, 0)


def test_what_has_expired_is_not_run_and_frees_its_place(start, script):
    """A request whose time is up, on arrival or behind a slow batch, is answered as expired and never runs."""
    with start(script(behaviour="sleep", seconds=0.3)) as (router, worker):
        late = router.lease(row(1), remaining_s=0)
        first = router.lease(row(2))
        router.send(late, first)
        while worker.loop.progress.read() != (0, 1):
            time.sleep(0.001)
        second = router.lease(row(3), remaining_s=0.01)
        router.send(second)
        results = router.results(3)
        assert results[late.entry.lease].code == ErrorCode.DEADLINE_EXCEEDED
        assert results[second.entry.lease].code == ErrorCode.DEADLINE_EXCEEDED
        assert results[first.entry.lease].code is None
        assert worker.loop.progress.read() == (1, 0)


def test_a_stuck_slot_holds_up_progress_but_not_the_others(start, script):
    """With two slots, requests go on beside a slow one, while progress waits for it: a hang cannot hide."""
    with start(script(behaviour="sleep", seconds=1.5, when={"value": 666}), slots=2) as (router, worker):
        slow = router.lease(row(666))
        router.send(slow)
        while worker.loop.progress.read() != (0, 1):
            time.sleep(0.001)
        for number in range(5):
            assert router.ask(row(number)).code is None
        assert worker.loop.progress.read() == (0, 1)
        assert router.results(1)[slow.entry.lease].code is None
        assert worker.loop.progress.read() == (6, 0)


def test_a_later_message_is_due_before_an_earlier_one(start, script):
    """A slot that waits for a batch window to end wakes for a full batch of another model, seen by any slot."""
    with start(script(max_delay_s=5, name="slow"), script(name="fast"), slots=2) as (router, _):
        slow = router.lease(row(1), model="slow")
        router.send(slow)
        for number in range(20):
            assert router.ask(row(number), model="fast").code is None
        router.send(*[router.lease(row(2), model="slow") for _ in range(7)])
        assert all(got.code is None for got in router.results(8).values())


def test_a_new_router_is_told_who_is_there(start, script, tmp_path):
    """When the router is replaced, the worker attaches again, forgets the old requests, and serves the new ones."""
    address = f"{tmp_path}/workers.sock"
    settings = make_worker_settings(script(max_delay_s=10), router_path=address)
    first = RouterEnd(address)
    worker = WorkerEnd(address, settings)
    try:
        assert first.attached().models[0].name == "m"
        first.send(first.lease(row(1)))
        first.close()
        with RouterEnd(address) as second:
            attach = second.attached()
            assert (attach.tenant, attach.replica, attach.generation) == ("a", 0, 1)
            second.send(*[second.lease(row(number)) for number in range(8)])
            assert all(got.code is None for got in second.results(8).values())
            assert second.is_silent()
    finally:
        worker.stop()


def test_stop_answers_what_was_received(start, script):
    """After a stop the slots answer everything that had come, and only then end."""
    with start(script(behaviour="sleep", seconds=0.1, max_batch=1), slots=2) as (router, worker):
        leased = [router.lease(row(number)) for number in range(6)]
        router.send(*leased)
        while worker.loop.progress.read()[1] == 0:
            time.sleep(0.001)
        worker.loop.stop()
        assert all(got.code is None for got in router.results(6).values())


def test_stop_waits_for_an_open_batch(start, script):
    """A request that still waits for others of its batch is answered before the slots end."""
    with start(script(max_delay_s=3.0), script(name="fast")) as (router, worker):
        waiting = router.lease(row(1))
        router.send(waiting)
        # Its answer shows that the other one has arrived too.
        assert router.ask(row(2), model="fast").code is None
        worker.loop.stop()
        assert router.results(1)[waiting.entry.lease].code is None
