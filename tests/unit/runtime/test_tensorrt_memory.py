"""Device memory over a made-up pool: exact in every outcome, told once, given back with the last block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from trtd.core.watermark import Watermarks
from trtd.errors import OutOfMemory


class Pool:
    """Gives addresses away until a limit, as a driver does."""

    def __init__(self, cuda, limit_bytes):
        self.cuda = cuda
        self.limit_bytes = limit_bytes
        self.held = {}
        self.code = 2
        self.is_closed = False

    def allocate(self, size_bytes, stream):
        if sum(self.held.values()) + size_bytes > self.limit_bytes:
            raise self.cuda.CudaError(self.code, "cudaMallocFromPoolAsync")
        address = 0x1000 * (len(self.held) + 1)
        self.held[address] = size_bytes
        return address

    def free(self, address, stream):
        del self.held[address]

    def trim(self):
        pass

    def close(self):
        self.is_closed = True


@pytest.fixture
def make_memory(import_with_cuda, monkeypatch):
    """Makes device memory with watermarks; what it tells is in `events`."""
    memory = import_with_cuda("trtd.runtime.tensorrt.memory")
    stream = SimpleNamespace(handle=None, synchronize=lambda: None, close=lambda: None)
    monkeypatch.setattr(memory.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(memory.cuda, "forget_last_error", lambda: None)

    def make(limit_bytes=10_000, **watermarks):
        pool = Pool(memory.cuda, limit_bytes)
        events = []
        made = memory.DeviceMemory(pool, Watermarks(**watermarks), lambda *event: events.append(event))
        return made, pool, events

    return make


def test_a_block_is_counted_while_it_is_held(make_memory):
    """The ledger and the pool agree after each step, and an address that is not held is given back to nobody."""
    memory, pool, _ = make_memory()
    address = memory.allocate(1000, "a tensor")
    assert (memory.state().live_bytes, pool.held) == (1000, {address: 1000})
    assert memory.free(address)
    assert not memory.free(address)
    assert (memory.state().live_bytes, memory.state().strays, pool.held) == (0, 1, {})


@pytest.mark.parametrize(("limit", "hard"), [(1500, 0), (10_000, 1500)])
def test_a_refusal_leaves_no_trace(make_memory, limit, hard):
    """Whether device or watermark refuses: nothing is held, one event tells, and the next block that fits is given."""
    memory, pool, events = make_memory(limit, hard_bytes=hard)
    memory.allocate(1000, "a tensor")
    with pytest.raises(OutOfMemory, match="no 600 bytes of device memory for scratch, with 1000 bytes held"):
        memory.allocate(600, "scratch")
    told = {"model": "", "size_bytes": 600, "live_bytes": 1000, "hard_bytes": hard}
    assert events == [("device_memory.refused", told)]
    assert memory.state().live_bytes == sum(pool.held.values()) == 1000
    assert memory.allocate(500, "scratch")


def test_a_lost_device_is_no_refusal(make_memory):
    """Another code than want of memory is raised as it is, and the ledger stays exact."""
    memory, pool, _ = make_memory(0)
    pool.code = 700
    with pytest.raises(pool.cuda.CudaError):
        memory.try_allocate(100)
    assert memory.state().live_bytes == 0


def test_the_level_is_told_when_it_changes(make_memory):
    """Above the soft watermark once, below its lower bound once, and nothing in between."""
    memory, _, events = make_memory(soft_bytes=1000)
    first = memory.allocate(900, "a")
    second, third = memory.allocate(200, "b"), memory.allocate(200, "c")
    assert memory.is_high
    for address in (third, second, first):
        memory.free(address)
    assert not memory.is_high
    told = [(name, fields["level"], fields["live_bytes"]) for name, fields in events]
    assert told == [("device_memory.level_changed", "high", 1100), ("device_memory.level_changed", "low", 0)]


def test_the_last_block_closes_the_pool(make_memory):
    """What an engine still holds keeps the pool open; it is closed with that."""
    memory, pool, _ = make_memory()
    address = memory.allocate(100, "weights")
    memory.close()
    assert not pool.is_closed
    memory.free(address)
    assert pool.is_closed


def test_a_derived_watermark_bounds_where_none_is_configured(make_memory):
    """It refuses like a configured one and says how to set another; taken away again, it refuses nothing."""
    memory, _, _ = make_memory()
    memory.bound(1000)
    assert (memory.hard_bytes, memory.configured_hard_bytes, memory.is_hard_derived) == (1000, 0, True)
    with pytest.raises(
        OutOfMemory, match=r"the watermark of 1000 bytes was derived, tensorrt\.hard_bytes sets another"
    ):
        memory.allocate(1001, "an output")
    memory.bound(0)
    assert not memory.is_hard_derived
    assert memory.allocate(1001, "an output")


def test_a_configured_watermark_stays(make_memory):
    """What the operator chose is not replaced; a soft one alone is never above the derived one."""
    memory, _, _ = make_memory(hard_bytes=500)
    memory.bound(1000)
    assert (memory.hard_bytes, memory.is_hard_derived) == (500, False)
    memory, _, _ = make_memory(soft_bytes=2000)
    memory.bound(1000)
    assert memory.hard_bytes == 2000


def test_each_thread_acts_for_its_model(make_memory):
    """What a thread allocates is the model's that it works for, and a refusal names it."""
    memory, _, events = make_memory(hard_bytes=1000)
    memory.act_for("a 1")
    memory.allocate(100, "a tensor")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(memory.act_for, "b 1").result()
        pool.submit(memory.allocate, 200, "a tensor").result()
        assert pool.submit(memory.try_allocate, 5000).result() == 0
    memory.allocate(10, "a tensor")
    assert [(one.owner, one.live_bytes) for one in memory.state().owners] == [("a 1", 110), ("b 1", 200)]
    assert events[-1][1]["model"] == "b 1"
