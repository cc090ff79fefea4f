"""One thread's slots with requests that have areas: which way each batch takes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.served import Answer, make_job, read_answers
from tests.support.worker import make_model_settings, make_worker_settings
from trtd.demo import models
from trtd.wire.arenas import decode_ref
from trtd.wire.messages import Dtype, Place, TensorSpec
from trtd.worker.answers import Answers, Job
from trtd.worker.load import load
from trtd.worker.progress import Progress
from trtd.worker.runner import Runner

COLUMNS = 16 * 1024
INPUT_BYTES = 4 * COLUMNS
X = np.arange(COLUMNS, dtype=np.float32).reshape(1, COLUMNS)


class Ends:
    """A runner of the identity in ONNX Runtime, and requests for it."""

    def __init__(self, tmp_path, memory, arenas) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(models.identity(dims=(COLUMNS,)))
        loaded = load(make_worker_settings(make_model_settings(path), runtime="onnxruntime"))
        self.model = loaded.catalogue.models[0]
        self.progress = Progress()
        self.runner = Runner(loaded.slots, 1, self.progress)
        self._memory, self._arenas = memory, arenas

    def waiting(self, number: int) -> Job:
        """A request whose input and area lie in the memory, apart from those of other numbers."""
        at = number * 2 * INPUT_BYTES
        plan = self.model.plan((TensorSpec("x", Dtype.FLOAT32, X.shape, Place.ARENA),), has_area=True)
        frames = [self._memory.write(X + number, at), self._memory.ref(at + INPUT_BYTES, INPUT_BYTES)]
        return make_job(plan, plan.read(frames, self._arenas), number)

    def run(self, *jobs: Job) -> list[Answer]:
        """Their answers as one batch."""
        answers = Answers()
        self.runner.run(jobs, answers)
        return read_answers(answers)


@pytest.fixture
def ends(tmp_path, memory, arenas):
    return Ends(tmp_path, memory, arenas)


def test_requests_with_areas_share_a_batch(ends, memory):
    """Several of them are one run, and each answer lies in its own area."""
    answers = ends.run(*[ends.waiting(number) for number in range(3)])
    assert ends.progress.read() == (1, 0)
    for number, answer in enumerate(answers):
        ref = decode_ref(answer.frames[1])
        assert ref.offset == (2 * number + 1) * INPUT_BYTES
        np.testing.assert_array_equal(memory.read(ref.offset, X.shape), X + number)


def test_nothing_runs_into_memory_that_was_closed(ends, memory, arenas):
    """A request whose arena was closed while it waited gets its answer in a frame, and its area stays as it is."""
    ends.run(ends.waiting(0))
    late = ends.waiting(1)
    arenas.clear()
    (answer,) = ends.run(late)
    assert answer.code is None
    np.testing.assert_array_equal(np.frombuffer(answer.frames[1], np.float32), (X + 1)[0])
    assert not memory.read(3 * INPUT_BYTES, (INPUT_BYTES,), np.uint8).any()
