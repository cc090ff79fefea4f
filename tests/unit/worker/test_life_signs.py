"""What a worker says of itself: memory and progress, and the exit code that goes with a fault."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.core.faults import ExitStatus, Fault, FaultKind, classify_exit
from trtd.errors import Blame, ExitCode
from trtd.worker.memory import Resident, over_limit, read_resident
from trtd.worker.process import exit_code
from trtd.worker.progress import Progress


def test_resident_memory_follows_what_is_touched():
    """Resident memory grows with touched pages, falls when they are given back, and its peak stays."""
    size = 64 * 1024 * 1024
    before = read_resident()
    with mmap.mmap(-1, size) as pages:
        pages.write(b"\x01" * size)
        during = read_resident()
    after = read_resident()
    assert during.rss_bytes - before.rss_bytes > size * 0.9
    assert during.rss_bytes - after.rss_bytes > size * 0.9
    assert after.peak_rss_bytes >= during.rss_bytes


@pytest.mark.parametrize(("rss", "limit", "is_over"), [(10, 0, False), (10, 10, False), (11, 10, True)])
def test_only_more_than_the_limit_is_a_fault(rss, limit, is_over):
    """A process at its limit is well, one above it is out of memory with both figures, and 0 means no limit."""
    fault = over_limit(Resident(rss, 12), limit)
    assert (fault is not None) is is_over
    if fault is not None:
        assert fault.kind is FaultKind.OUT_OF_MEMORY
        assert not fault.permanent
        assert "11 bytes" in fault.message
        assert "10 bytes" in fault.message


def test_what_clients_share_does_not_end_a_worker():
    """Shared memory that is touched is told as such, and only what is left of the resident memory is limited."""
    size = 32 * 1024 * 1024
    before = read_resident()
    with mmap.mmap(-1, size) as pages:
        pages.write(b"\x01" * size)
        during = read_resident()
    assert during.shared_bytes - before.shared_bytes == size
    assert over_limit(Resident(110, 120, 10), 100) is None
    assert over_limit(Resident(111, 120, 10), 100) is not None


@settings(deadline=None)
@given(ends=st.lists(st.integers(0, 3), max_size=30))
def test_progress_is_held_up_by_the_oldest_batch(ends):
    """Progress never passes a batch that still runs, never falls, and reaches all when none runs."""
    progress = Progress()
    running = [progress.begin() for _ in range(4)]
    last = 0
    for index in ends:
        progress.end(running.pop(index))
        running.append(progress.begin())
        now, in_flight = progress.read()
        assert now == min(running) - 1 >= last
        assert in_flight == 4
        last = now
    for number in running:
        progress.end(number)
    assert progress.read() == (4 + len(ends), 0)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(FaultKind.BAD_CONFIG, "", permanent=True), ExitCode.BAD_CONFIG),
        (Fault(FaultKind.BAD_MODEL, "", permanent=True), ExitCode.BAD_DATA),
        (Fault(FaultKind.PROBE_FAILED, "", permanent=True), ExitCode.BAD_DATA),
        (Fault(FaultKind.OUT_OF_MEMORY, ""), ExitCode.TEMPORARY),
        (Fault(FaultKind.EXITED, "", blame=Blame.DAEMON), ExitCode.INTERNAL),
    ],
)
def test_exit_codes_say_what_the_report_said(fault, code):
    """Where the report is lost, the exit code alone leads to the same verdict on a restart, and the same blame."""
    assert exit_code(fault) is code
    verdict = classify_exit(ExitStatus(code=code))
    assert (verdict.permanent, verdict.blame) == (fault.permanent, fault.blame)


def test_the_end_of_a_rest_is_told_once_and_before_the_batch_runs():
    """The first batch after a rest is told of, later ones are not; a batch that began meanwhile lets nobody rest."""
    told: list[tuple[int, int]] = []
    progress = Progress(lambda: told.append(progress.read()))
    seen = progress.read()
    assert progress.rest(seen)
    number = progress.begin()
    progress.end(number)
    assert told == [(0, 1)]
    assert not progress.rest(seen)
    assert progress.rest(progress.read())
    progress.end(progress.begin())
    progress.end(progress.begin())
    assert told == [(0, 1), (1, 1)]
