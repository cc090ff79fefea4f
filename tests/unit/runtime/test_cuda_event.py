"""Waiting for the device: awake for a moment, then asleep; errors of the work surface at once. No CUDA is needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

NOT_READY = 600
STREAM = SimpleNamespace(handle=None)


@pytest.fixture
def waiting(import_with_cuda, cudart, monkeypatch):
    """The module, on a CUDA runtime that notes how it was waited for; `answers` are what the event says when asked."""
    cuda = import_with_cuda("trtd.runtime.cuda")
    noted = SimpleNamespace(answers=[], calls=[], naps=[])

    def query(_):
        noted.calls.append("asked")
        return (noted.answers.pop(0) if noted.answers else 0,)

    def synchronize(_):
        noted.calls.append("slept")
        return (0,)

    cudart.cudaEventQuery, cudart.cudaEventSynchronize = query, synchronize
    monkeypatch.setattr(cuda, "cudart", cudart)
    monkeypatch.setattr(cuda.time, "sleep", noted.naps.append)
    return cuda, noted


def test_what_is_over_at_once_is_not_slept_for(waiting, monkeypatch):
    """The event is asked until it has come, and the thread never sleeps."""
    cuda, noted = waiting
    monkeypatch.setattr(cuda.time, "perf_counter", lambda: 0.0)
    noted.answers = [NOT_READY, NOT_READY, 0]
    cuda.Event(is_spinning=False).wait_for(STREAM)
    assert noted.calls == ["asked"] * 3
    assert noted.naps == []


def test_what_takes_long_is_slept_for(waiting, monkeypatch):
    """After the time of spinning the thread sleeps until it is woken, and naps before it looks the next time."""
    cuda, noted = waiting
    clock = iter(step * 1e-4 for step in range(10**6))
    monkeypatch.setattr(cuda.time, "perf_counter", lambda: next(clock))
    noted.answers = [NOT_READY] * 100
    event = cuda.Event(is_spinning=False)
    event.wait_for(STREAM)
    assert noted.calls[-1] == "slept"
    assert noted.naps == []
    noted.answers = [0]
    event.wait_for(STREAM)
    assert len(noted.naps) == 1
    assert 0 < noted.naps[0] < 1e-3


def test_an_error_of_the_work_surfaces(waiting, monkeypatch):
    """A code that is neither success nor not-ready is raised, with the code."""
    cuda, noted = waiting
    monkeypatch.setattr(cuda.time, "perf_counter", lambda: 0.0)
    noted.answers = [NOT_READY, 700]
    with pytest.raises(cuda.CudaError) as caught:
        cuda.Event(is_spinning=False).wait_for(STREAM)
    assert caught.value.code == 700
    assert "slept" not in noted.calls


def test_a_spinning_event_leaves_it_to_the_driver(waiting):
    """Where the configuration says so, the driver spins, and nothing is asked or slept here."""
    cuda, noted = waiting
    cuda.Event(is_spinning=True).wait_for(STREAM)
    assert noted.calls == ["slept"]
    assert noted.naps == []
