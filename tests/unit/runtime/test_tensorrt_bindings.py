"""What TensorRT calls on our classes: both names of the recorder's count, the allocator's order, never an exception."""

from __future__ import annotations

import pytest

from tests.support.bindings import find_bindings, installed_bindings
from trtd.runtime.tensorrt.allocator import make_allocator, passes_stream_first
from trtd.runtime.tensorrt.outputs import GrowingOutputs, make_output_allocator
from trtd.runtime.tensorrt.recorder import ErrorBook, make_logger, make_recorder

STREAM = 77


class Memory:
    """Gives away made-up addresses up to a size, and remembers what it was asked."""

    def __init__(self, most: int = 1000):
        self.most = most
        self.calls = []
        self.failure = None

    def try_allocate(self, size, stream=None):
        self.calls.append(("allocate", size, stream))
        if self.failure is not None:
            raise self.failure
        return 0x1000 * len(self.calls) if size <= self.most else 0

    def free(self, address, stream=None):
        self.calls.append(("free", address, stream))
        return True


class Events(list):
    """A sink that keeps what it is told."""

    def __call__(self, event, fields):
        self.append((event, fields))


@pytest.fixture(params=["stand-in/10", "stand-in/11", *installed_bindings()])
def bindings(request):
    """The stand-ins, and each TensorRT that is installed here."""
    return find_bindings(request.param)


def allocate(module, allocator, size, stream=STREAM):
    """As TensorRT's C++ side asks for memory."""
    return module.IGpuAllocator.allocate_async(allocator, size, 256, 0, stream)


def test_real_bindings_are_among_them():
    """Where a package of TensorRT is installed, everything here runs against it as well."""
    if not installed_bindings():
        pytest.skip("no bindings of TensorRT are installed here")
    assert all(hasattr(find_bindings(name), "IGpuAsyncAllocator") for name in installed_bindings())


def test_the_recorder_answers_by_both_names(bindings):
    """The C++ side counts through one name and Python through another; a text is kept in one line, and told once."""
    book, events = ErrorBook(), Events()
    recorder = make_recorder(bindings, book, events)
    for _ in range(2):
        assert bindings.IErrorRecorder.report_error(recorder, bindings.ErrorCodeTRT.INVALID_ARGUMENT, "a\nb") is True
    assert bindings.IErrorRecorder.num_errors(recorder) == recorder.num_errors() == recorder.get_num_errors() == 1
    assert (recorder.get_error_code(0), recorder.get_error_desc(0)) == (bindings.ErrorCodeTRT.INVALID_ARGUMENT, "a b")
    assert recorder.get_error_code(5) == bindings.ErrorCodeTRT.UNSPECIFIED_ERROR
    assert recorder.get_error_desc(5) == ""
    assert not recorder.has_overflowed()
    assert events == [("tensorrt.error_reported", {"code": 3, "text": "a b"})]
    recorder.clear()
    assert recorder.num_errors() == 0


def test_a_log_that_fails_does_not_reach_tensorrt(bindings):
    """Whatever goes wrong while an error is told, TensorRT hears True and no exception."""

    def broken(event, fields):
        raise RuntimeError("the log is gone")

    book = ErrorBook()
    recorder = make_recorder(bindings, book, broken)
    assert bindings.IErrorRecorder.report_error(recorder, bindings.ErrorCodeTRT.INTERNAL_ERROR, "x") is True
    bindings.ILogger.log(make_logger(bindings, book, broken), bindings.ILogger.Severity.ERROR, "y")
    assert book.take() == ["x", "y"]


def test_the_logger_keeps_errors_and_tells_the_rest(bindings):
    """Errors go to the book as a recorder's do; warnings are told, and verbose lines are nobody's business."""
    book, events = ErrorBook(), Events()
    logger = make_logger(bindings, book, events)
    severity = bindings.ILogger.Severity
    for level in (severity.INTERNAL_ERROR, severity.WARNING, severity.INFO, severity.VERBOSE):
        bindings.ILogger.log(logger, level, f"{level.name}")
    assert book.take() == ["INTERNAL_ERROR"]
    assert [event for event, _ in events] == ["tensorrt.error_reported", "tensorrt.warned", "tensorrt.told"]


def test_the_allocator_finds_the_stream_in_any_order(bindings):
    """Flags and stream change places between versions; the bytes are asked for on the stream all the same."""
    memory = Memory()
    allocate(bindings, make_allocator(bindings, memory, pytest.fail), 100)
    allocate(bindings, make_allocator(bindings, memory, pytest.fail), 100, stream=0)
    assert memory.calls == [("allocate", 100, STREAM), ("allocate", 100, None)]


@pytest.mark.parametrize(("name", "expected"), [("stand-in/10", True), ("stand-in/11", False)])
def test_the_probe_tells_the_orders_apart(name, expected):
    """Versions up to 11.1 pass the stream before the flags, later ones do not."""
    assert passes_stream_first(find_bindings(name)) is expected


def test_a_refusal_is_the_int_0(bindings):
    """TensorRT takes 0 for a refusal without a word; the C++ side sees a null pointer."""
    allocator = make_allocator(bindings, Memory(most=10), pytest.fail)
    assert allocator.allocate_async(100, 256, 0, 0) == 0
    assert allocate(bindings, allocator, 100) is None
    assert allocator.reallocate(0x1000, 256, 200) == 0


def test_a_defect_is_told_and_becomes_a_refusal(bindings):
    """An exception inside the allocator never crosses into native code; freeing always succeeds for TensorRT."""
    memory, defects = Memory(), []
    memory.failure = RuntimeError("no device")
    allocator = make_allocator(bindings, memory, defects.append)
    assert allocator.allocate_async(100, 256, 0, 0) == 0
    assert defects == [memory.failure]
    assert allocator.deallocate_async(0x1000, STREAM) is True
    assert allocator.deallocate_async(0, STREAM) is True
    assert memory.calls[1:] == [("free", 0x1000, STREAM)]


def test_an_address_that_is_not_aligned_is_given_back(bindings):
    """An alignment that the pool did not keep would be undefined behaviour in native code: refused and told."""
    memory, defects = Memory(), []
    assert make_allocator(bindings, memory, defects.append).allocate_async(100, 0x2000, 0, 0) == 0
    assert memory.calls == [("allocate", 100, None), ("free", 0x1000, None)]
    assert "not aligned" in str(defects[0])


def test_outputs_of_unknown_size_grow_and_are_kept(bindings):
    """A block is used again while it suffices, replaced when it does not, and 0 is answered where memory is refused."""
    memory = Memory(most=600)
    outputs = GrowingOutputs(memory)
    allocator = make_output_allocator(bindings, outputs, pytest.fail)
    first = allocator.reallocate_output_async("y", 0, 0, 256, STREAM)
    assert first
    assert allocator.reallocate_output("y", first, 200, 256) == first
    second = allocator.reallocate_output_async("y", first, 500, 256, STREAM)
    assert second not in (0, first)
    assert memory.calls == [("allocate", 256, STREAM), ("free", first, STREAM), ("allocate", 500, STREAM)]
    allocator.notify_shape("y", (2, 3))
    assert outputs.shapes == {"y": (2, 3)}
    assert allocator.reallocate_output_async("y", second, 700, 256, STREAM) == 0
    outputs.close()
    assert memory.calls[-1][0] == "allocate", "what was given back is not given back again"


def test_a_defect_of_an_output_is_a_refusal(bindings):
    """An exception while an output grows is told, and TensorRT sees a null pointer."""
    memory, defects = Memory(), []
    memory.failure = RuntimeError("no device")
    allocator = make_output_allocator(bindings, GrowingOutputs(memory), defects.append)
    assert allocator.reallocate_output_async("y", 0, 10, 256, STREAM) == 0
    allocator.notify_shape("y", None)
    assert [type(one) for one in defects] == [RuntimeError, TypeError]
