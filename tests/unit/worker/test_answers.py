"""Results: outputs in frames, outputs in the area that the client named, and one batch for many requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.support.memory import ClientMemory
from tests.support.served import Answer, make_job, make_served, read_answers
from trtd.errors import ErrorCode, ModelFailed, TooLarge
from trtd.runtime.gather import cut
from trtd.runtime.protocol import Arrays
from trtd.wire import packing
from trtd.wire.arenas import MIN_PLACED_BYTES, decode_ref
from trtd.wire.batches import RESULTS_BYTES, max_results_bytes
from trtd.wire.codec import decode_router_message
from trtd.wire.messages import Dtype, ErrorAnswer, InferAnswer, Place, TensorContract, TensorSpec
from trtd.wire.tensors import from_frame, to_frame
from trtd.worker.answer_sizes import refuse_before
from trtd.worker.answers import Answers, Job, Results

COLUMNS = MIN_PLACED_BYTES // 4
ROW_BYTES = MIN_PLACED_BYTES
STARTED_AT = 1e9
MODEL = make_served(
    TensorContract("a", Dtype.FLOAT32, (None, COLUMNS)), TensorContract("b", Dtype.FLOAT32, (None, None)), max_batch=64
)


def outputs(items: int = 1, b_columns: int = 2, start: float = 0) -> dict[str, np.ndarray]:
    """Output `a` is large enough for an area with one item, `b` is small unless it is made wide."""
    a = np.arange(items * COLUMNS, dtype=np.float32).reshape(items, COLUMNS) + start
    return {"a": a, "b": np.arange(items * b_columns, dtype=np.float32).reshape(items, b_columns) - start}


def job(number: int, inputs: Mapping[str, np.ndarray], arenas=None, area: bytes | None = None, plans=None) -> Job:
    """A request for `MODEL`; those whose headers agree have one plan where `plans` remembers them."""
    specs = tuple(TensorSpec(name, Dtype.FLOAT32, array.shape) for name, array in inputs.items())
    frames: list[Any] = [to_frame(array) for array in inputs.values()]
    plan = MODEL.plan(specs, has_area=area is not None)
    plan = plan if plans is None else plans.setdefault((specs, area is None), plan)
    read = plan.read([*frames, *([] if area is None else [area])], arenas)
    return make_job(plan, read, number, queue_us=3)


def answer_all(results: Results, jobs: Sequence[Job], made: Sequence[Arrays]) -> list[Answer]:
    """The answers to requests that ran together."""
    answers = Answers()
    results.add(answers, jobs, made, STARTED_AT, 9)
    return read_answers(answers)


def answer(results: Results, one: Job, made: Arrays) -> Answer:
    """The answer to a request that ran alone."""
    (got,) = answer_all(results, [one], [made])
    return got


def read(answer: Answer, memory: ClientMemory | None = None) -> tuple[InferAnswer, dict[str, np.ndarray]]:
    """The answer as its client reads it."""
    header = decode_router_message(answer.frames[0])
    assert isinstance(header, InferAnswer)
    arrays = {}
    for spec, frame in zip(header.outputs, answer.frames[1:], strict=True):
        if spec.place is Place.FRAME:
            arrays[spec.name] = from_frame(spec, frame)
        else:
            assert memory is not None
            ref = decode_ref(frame)
            assert ref.key == memory.key
            arrays[spec.name] = memory.read(ref.offset, spec.shape)
            assert arrays[spec.name].nbytes == ref.size_bytes
    return header, arrays


def check(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def places(answer: Answer) -> list[Place]:
    header = decode_router_message(answer.frames[0])
    assert isinstance(header, InferAnswer)
    return [spec.place for spec in header.outputs]


@pytest.mark.parametrize("gap_s", [0.0, 0.5])
@pytest.mark.parametrize("counts", [(1, 3, 1, 2), (1, 1, 1), (2, 2)])
def test_a_batch_is_answered_as_its_requests_one_by_one_would_be(counts, gap_s):
    """The answers cut from a batch's outputs are, byte for byte, those of each request by itself."""
    each = [outputs(items, start=items * 100) for items in counts]
    whole = {name: np.concatenate([one[name] for one in each]) for name in ("a", "b")}
    plans = {}
    jobs = [job(number, one, plans=plans) for number, one in enumerate(each)]
    for number, one in enumerate(jobs):
        one.arrived_at = STARTED_AT - gap_s * number
    results = Results(1)
    together = answer_all(results, jobs, cut(whole, [one.inputs for one in jobs]))
    alone = [*map(partial(answer, results), jobs, each)]
    assert [bytes(frame) for one in together for frame in one.frames] == [
        bytes(frame) for one in alone for frame in one.frames
    ]
    for number, (one, made) in enumerate(zip(together, each, strict=True)):
        header, arrays = read(one)
        assert (int.from_bytes(header.id, "big"), one.lease) == (number, number)
        assert (header.timing.batch_us, header.timing.compute_us) == (number * gap_s * 1e6, 9)
        check(arrays, made)


def test_many_answers_leave_in_few_messages():
    """What is more than one message holds is split between answers, errors among results, and nothing is left."""
    answers = Answers()
    for number in range(150):
        one = job(number, outputs())
        if number % 3:
            Results(1).add(answers, [one], [outputs(start=number)], one.arrived_at, 0)
        else:
            answers.refuse(one.lease, one.id, ModelFailed("no"))
    assert len(answers) == 150
    got = read_answers(answers)
    assert [one.lease for one in got] == list(range(150))
    for number, one in enumerate(got):
        if number % 3:
            check(read(one)[1], outputs(start=number))
        else:
            assert (one.code, len(one.frames)) == (ErrorCode.MODEL_FAILED, 1)
    assert not answers
    assert answers.take(1) == []


def test_large_outputs_go_into_the_area_small_ones_come_in_frames(arenas, memory):
    """What is large lies in the area at an aligned place, what is small in its frame, and both are right."""
    made = outputs()
    got = answer(Results(1), job(1, made, arenas, memory.ref(4096, 100_000)), made)
    assert places(got) == [Place.ARENA, Place.FRAME]
    assert decode_ref(got.frames[1]).offset == 4096
    check(read(got, memory)[1], made)


@pytest.mark.parametrize(
    ("area_bytes", "expected"),
    [
        (0, [Place.FRAME, Place.FRAME]),
        (ROW_BYTES - 1, [Place.FRAME, Place.FRAME]),
        (ROW_BYTES, [Place.ARENA, Place.FRAME]),
        (2 * ROW_BYTES + 63, [Place.ARENA, Place.FRAME]),
        (2 * ROW_BYTES + 64, [Place.ARENA, Place.ARENA]),
    ],
)
def test_nothing_is_written_beyond_the_area(arenas, memory, area_bytes, expected):
    """Outputs that do not fit come in frames, and not one byte after the area changes."""
    made = outputs(b_columns=COLUMNS + 16)
    os_end = 64 + area_bytes
    got = answer(Results(1), job(1, made, arenas, memory.ref(64, area_bytes)), made)
    assert places(got) == expected
    check(read(got, memory)[1], made)
    rest = memory.read(os_end, (memory.size_bytes - os_end,), np.uint8)
    assert not rest.any()


@pytest.mark.parametrize("with_area", [{1, 3}, {0, 1, 2, 3}])
def test_a_batch_writes_into_the_area_of_each_request(arenas, memory, with_area):
    """Requests with and without areas share a batch, and each finds its own rows where it asked for them."""
    each = [outputs(1, start=number) for number in range(4)]
    areas = [memory.ref(number * 65536, 65536) if number in with_area else None for number in range(4)]
    plans = {}
    jobs = [job(number, one, arenas, area, plans) for number, (one, area) in enumerate(zip(each, areas, strict=True))]
    whole = {name: np.concatenate([one[name] for one in each]) for name in ("a", "b")}
    answers = answer_all(Results(1), jobs, cut(whole, [one.inputs for one in jobs]))
    for got, made, area in zip(answers, each, areas, strict=True):
        assert places(got)[0] is (Place.FRAME if area is None else Place.ARENA)
        check(read(got, memory)[1], made)


def test_headers_are_remembered_by_what_is_placed(arenas, memory):
    """The same shapes with and without an area do not get each other's headers, in whatever order they come."""
    results = Results(1)
    made = outputs()
    for area in (None, memory.ref(0, 65536), memory.ref(0, 64), None, memory.ref(0, 65536)):
        check(read(answer(results, job(1, made, arenas, area), made), memory)[1], made)


def test_an_area_of_a_closed_arena_is_not_written_to(arenas, memory):
    """Once the router that named it has gone, a late answer stays in frames, and the memory as it is."""
    made = outputs()
    late = job(1, made, arenas, memory.ref(0, 65536))
    arenas.clear()
    got = answer(Results(1), late, made)
    assert places(got) == [Place.FRAME, Place.FRAME]
    assert not memory.read(0, (65536,), np.uint8).any()
    check(read(got)[1], made)


def test_outputs_that_are_there_already_are_left_alone(arenas, memory):
    """An output that the runtime wrote into the area itself is only named."""
    made = outputs()
    one = job(1, made, arenas, memory.ref(0, 65536))
    there = np.ndarray((1, COLUMNS), np.float32, one.inputs.area.memory)
    there[:] = made["a"]
    got = answer(Results(1), one, {**made, "a": there})
    assert places(got) == [Place.ARENA, Place.FRAME]
    check(read(got, memory)[1], made)


def test_an_answer_that_is_too_large_is_refused_and_its_mates_are_answered(arenas, memory):
    """What is over the limit gets an error that names bytes, output and key; shared memory does not count."""
    plans = {}
    items = [1, 3, 1, 3]
    each = [outputs(count, start=number) for number, count in enumerate(items)]
    areas = [None, None, None, memory.ref(0, 3 * ROW_BYTES)]
    jobs = [job(number, one, arenas, area, plans) for number, (one, area) in enumerate(zip(each, areas, strict=True))]
    whole = {name: np.concatenate([one[name] for one in each]) for name in ("a", "b")}
    results = Results(1, max_answer_bytes=2 * ROW_BYTES)
    together = answer_all(results, jobs, cut(whole, [one.inputs for one in jobs]))
    alone = [*map(partial(answer, results), jobs, each)]
    for got in (together, alone):
        assert [one.code for one in got] == [None, ErrorCode.TOO_LARGE, None, None]
        for number in (0, 2, 3):
            check(read(got[number], memory)[1], each[number])
        error = decode_router_message(got[1].frames[0])
        assert isinstance(error, ErrorAnswer)
        of_a, whole_answer = 3 * ROW_BYTES, 3 * (ROW_BYTES + 8)
        assert error.message == (
            f"model m 1: the answer has {whole_answer} bytes, {of_a} of them in output 'a'; an answer may have "
            f"{2 * ROW_BYTES} (queue.max_answer_bytes), what lies in the client's shared memory not counted"
        )


def test_answers_of_equal_size_that_are_too_large_are_all_refused():
    """A batch of requests alike, the usual one, is held to the same limit; at the limit they are answered."""
    each = [outputs(start=number) for number in range(3)]
    plans = {}
    jobs = [job(number, one, plans=plans) for number, one in enumerate(each)]
    whole = {name: np.concatenate([one[name] for one in each]) for name in ("a", "b")}
    for limit, code in ((ROW_BYTES + 8, None), (ROW_BYTES + 7, ErrorCode.TOO_LARGE)):
        got = answer_all(Results(1, limit), jobs, cut(whole, [one.inputs for one in jobs]))
        assert [one.code for one in got] == [code] * 3


def test_large_answers_leave_in_messages_of_a_few_mebibytes():
    """Messages are split by bytes, an answer of more bytes than that travels alone, and order and bytes are kept."""
    columns = [1, 300_000, 300_000, 3_000_000, 1, 1, 1_000_000, 1_000_000, 1_000_000, 1]
    answers = Answers()
    made = [outputs(b_columns=count, start=number) for number, count in enumerate(columns)]
    for number, one in enumerate(made):
        Results(1).add(answers, [job(number, one)], [one], STARTED_AT, 0)
    messages = answers.take(1)
    sizes = [sum(map(len, frames[1:])) for frames in messages]
    assert all(size <= RESULTS_BYTES or len(frames) == 4 for size, frames in zip(sizes, messages, strict=True))
    assert 1 < len(messages) < len(columns)
    assert all(packing.pack_sized(frames)[1] <= max_results_bytes(max(sizes)) for frames in messages)
    for number, one in enumerate(made):
        Results(1).add(answers, [job(number, one)], [one], STARTED_AT, 0)
    for number, got in enumerate(read_answers(answers)):
        assert got.lease == number
        check(read(got)[1], made[number])


@pytest.mark.parametrize(
    ("shape", "items", "is_refused"),
    [
        ((None, 1024), 2, False),
        ((None, 1024), 3, True),
        ((3, 1024), 1, True),
        ((None, None), 99, False),
        (None, 1, False),
    ],
)
def test_what_will_be_too_large_is_refused_before_it_runs(shape, items, is_refused):
    """Where the model's own shapes tell the size of an answer in frames, nothing is run for it."""
    served = make_served(TensorContract("x", Dtype.FLOAT32, (None, 4)), max_batch=128)
    served.outputs = {"x": TensorContract("x", Dtype.FLOAT32, shape)}
    plan = served.plan((TensorSpec("x", Dtype.FLOAT32, (items, 4)),))
    if not is_refused:
        refuse_before(served, plan.layout, 2 * 4096)
        return
    with pytest.raises(TooLarge, match="answer has 12288 bytes, 12288 of them in output 'x'; an answer may have 8192"):
        refuse_before(served, plan.layout, 2 * 4096)
