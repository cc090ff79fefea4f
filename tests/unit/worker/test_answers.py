"""Results: outputs in frames, outputs in the area that the client named, and one batch for many requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.support.memory import ClientMemory
from tests.support.served import make_job, make_served
from trtd.runtime.gather import cut
from trtd.wire.arenas import MIN_PLACED_BYTES, decode_ref
from trtd.wire.codec import decode_router_message
from trtd.wire.messages import Dtype, InferAnswer, Place, TensorContract, TensorSpec
from trtd.wire.tensors import from_frame, to_frame
from trtd.worker.answers import Answer, Job, Results

COLUMNS = MIN_PLACED_BYTES // 4
ROW_BYTES = MIN_PLACED_BYTES
MODEL = make_served(
    TensorContract("a", Dtype.FLOAT32, (None, COLUMNS)), TensorContract("b", Dtype.FLOAT32, (None, None)), max_batch=64
)


def outputs(items: int = 1, b_columns: int = 2, start: float = 0) -> dict[str, np.ndarray]:
    """Output `a` is large enough for an area with one item, `b` is small unless it is made wide."""
    a = np.arange(items * COLUMNS, dtype=np.float32).reshape(items, COLUMNS) + start
    return {"a": a, "b": np.arange(items * b_columns, dtype=np.float32).reshape(items, b_columns) - start}


def job(number: int, inputs: Mapping[str, np.ndarray], arenas=None, area: bytes | None = None) -> Job:
    specs = tuple(TensorSpec(name, Dtype.FLOAT32, array.shape) for name, array in inputs.items())
    frames: list[Any] = [to_frame(array) for array in inputs.values()]
    plan = MODEL.plan(specs, has_area=area is not None)
    read = plan.read([*frames, *([] if area is None else [area])], arenas)
    return make_job(plan, read, number, queue_us=3)


def read(answer: Answer, memory: ClientMemory | None = None) -> tuple[InferAnswer, dict[str, np.ndarray]]:
    """The answer as its client reads it."""
    header = decode_router_message(answer[2][0])
    assert isinstance(header, InferAnswer)
    arrays = {}
    for spec, frame in zip(header.outputs, answer[2][1:], strict=True):
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
    header = decode_router_message(answer[2][0])
    assert isinstance(header, InferAnswer)
    return [spec.place for spec in header.outputs]


def test_a_batch_is_answered_as_its_requests_one_by_one_would_be():
    """The answers cut from a batch's outputs are, byte for byte, those of each request by itself."""
    each = [outputs(items, start=items * 100) for items in (1, 3, 1, 2)]
    whole = {name: np.concatenate([one[name] for one in each]) for name in ("a", "b")}
    jobs = [job(number, one) for number, one in enumerate(each)]
    results = Results(1)
    rows = cut(whole, [one.inputs for one in jobs])
    together = results.answer_rows(jobs, rows, [5, 6, 7, 8], 9)
    alone = [
        results.answer(one, made, 5 + number, 9) for number, (one, made) in enumerate(zip(jobs, each, strict=True))
    ]
    assert [bytes(frame) for one in together for frame in one[2]] == [bytes(frame) for one in alone for frame in one[2]]
    for number, (answer, made) in enumerate(zip(together, each, strict=True)):
        header, arrays = read(answer)
        assert (int.from_bytes(header.id, "big"), header.timing.batch_us) == (number, 5 + number)
        check(arrays, made)


def test_large_outputs_go_into_the_area_small_ones_come_in_frames(arenas, memory):
    """What is large lies in the area at an aligned place, what is small in its frame, and both are right."""
    made = outputs()
    answer = Results(1).answer(job(1, made, arenas, memory.ref(4096, 100_000)), made, 0, 0)
    assert places(answer) == [Place.ARENA, Place.FRAME]
    assert decode_ref(answer[2][1]).offset == 4096
    check(read(answer, memory)[1], made)


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
    answer = Results(1).answer(job(1, made, arenas, memory.ref(64, area_bytes)), made, 0, 0)
    assert places(answer) == expected
    check(read(answer, memory)[1], made)
    rest = memory.read(os_end, (memory.size_bytes - os_end,), np.uint8)
    assert not rest.any()


def test_a_batch_writes_into_the_area_of_each_request(arenas, memory):
    """Requests with and without areas share a batch, and each finds its own rows where it asked for them."""
    each = [outputs(1, start=number) for number in range(4)]
    areas = [memory.ref(number * 65536, 65536) if number % 2 else None for number in range(4)]
    jobs = [job(number, one, arenas, area) for number, (one, area) in enumerate(zip(each, areas, strict=True))]
    whole = {name: np.concatenate([one[name] for one in each]) for name in ("a", "b")}
    answers = Results(1).answer_rows(jobs, cut(whole, [one.inputs for one in jobs]), [0] * 4, 0)
    for answer, made, area in zip(answers, each, areas, strict=True):
        assert places(answer)[0] is (Place.FRAME if area is None else Place.ARENA)
        check(read(answer, memory)[1], made)


def test_headers_are_remembered_by_what_is_placed(arenas, memory):
    """The same shapes with and without an area do not get each other's headers, in whatever order they come."""
    results = Results(1)
    made = outputs()
    for area in (None, memory.ref(0, 65536), memory.ref(0, 64), None, memory.ref(0, 65536)):
        answer = results.answer(job(1, made, arenas, area), made, 0, 0)
        check(read(answer, memory)[1], made)


def test_an_area_of_a_closed_arena_is_not_written_to(arenas, memory):
    """Once the router that named it has gone, a late answer stays in frames, and the memory as it is."""
    made = outputs()
    late = job(1, made, arenas, memory.ref(0, 65536))
    arenas.clear()
    answer = Results(1).answer(late, made, 0, 0)
    assert places(answer) == [Place.FRAME, Place.FRAME]
    assert not memory.read(0, (65536,), np.uint8).any()
    check(read(answer)[1], made)


def test_outputs_that_are_there_already_are_left_alone(arenas, memory):
    """An output that the runtime wrote into the area itself is only named."""
    made = outputs()
    one = job(1, made, arenas, memory.ref(0, 65536))
    there = np.ndarray((1, COLUMNS), np.float32, one.inputs.area.memory)
    there[:] = made["a"]
    answer = Results(1).answer(one, {**made, "a": there}, 0, 0)
    assert places(answer) == [Place.ARENA, Place.FRAME]
    check(read(answer, memory)[1], made)
