"""ONNX Runtime by itself, in a process of its own: for each case the outputs of all its questions."""

from __future__ import annotations

from dataclasses import dataclass

from tests.real.careful import serve_each
from tests.real.cases import Case, Tensors
from trtd.runtime.onnxruntime import BITS, DTYPES, unwrap
from trtd.runtime.ort import ort
from trtd.wire.tensors import bits_of, spec_of, wrap


@dataclass(frozen=True)
class Plain:
    """What came of one case.

    Attributes:
        answers: the outputs that travel, for each question.
        again: the same of a second run of the first question, in a session of its own: what differs is left to chance.
        left_out: outputs that do not travel.
    """

    answers: list[Tensors]
    again: Tensors
    left_out: int


def open_session(path: str) -> ort.InferenceSession:
    """A session with the threads of a worker."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(session: ort.InferenceSession, question: Tensors) -> Tensors:
    """One run, and its outputs that travel."""
    values = {}
    for name, tensor in question.items():
        kind = BITS.get(spec_of(name, tensor).dtype)
        array = bits_of(tensor)
        values[name] = (
            ort.OrtValue.ortvalue_from_numpy(array)
            if kind is None
            else ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind)
        )
    listed = {node.name: node.type for node in session.get_outputs()}
    names = [name for name, kind in listed.items() if kind in DTYPES]
    outputs = session.run_with_ort_values(names, values)
    return {name: wrap(DTYPES[listed[name]], unwrap(value)) for name, value in zip(names, outputs, strict=True)}


def run(case: Case) -> Plain:
    """All questions of a case, and the first one again."""
    session = open_session(case.path)
    answers = [answer(session, question) for question in case.questions]
    left_out = sum(node.type not in DTYPES for node in session.get_outputs())
    return Plain(answers, answer(open_session(case.path), case.questions[0]), left_out)


def main() -> None:
    """What `tests.real.careful.each` runs."""
    serve_each(run)
