"""Scratch memory: one block for all models of a thread, promised before it is taken, given back with its last user."""

from __future__ import annotations

import gc
import threading

from trtd.runtime.tensorrt.scratch import ScratchPool


class Memory:
    """Counts what is held."""

    def __init__(self):
        self.held = {}

    def allocate(self, size_bytes, what):
        address = 0x1000 * (len(self.held) + 1)
        self.held[address] = size_bytes
        return address

    def free(self, address):
        del self.held[address]


def in_thread(work):
    """What a piece of work gives in a thread of its own."""
    given = []
    thread = threading.Thread(target=lambda: given.append(work()))
    thread.start()
    thread.join()
    return given[0]


def test_models_of_one_thread_share_the_block_of_the_largest():
    """The first slot takes as much as the largest loaded model needs, and the other models take no more."""
    memory = Memory()
    pool = ScratchPool(memory, slots=1)
    small, large = pool.promise(0, 100), pool.promise(0, 900)
    blocks = [pool.take(one, "a model") for one in (small, large)]
    assert blocks[0] is blocks[1]
    assert list(memory.held.values()) == [900]
    pool.give_back(small, blocks[0])
    assert memory.held
    pool.give_back(large, blocks[1])
    assert not memory.held


def test_a_model_that_comes_late_and_is_larger_gets_its_own_block():
    """A block that contexts and graphs know cannot grow."""
    memory = Memory()
    pool = ScratchPool(memory, slots=1)
    early = pool.take(pool.promise(0, 100), "a model")
    late = pool.take(pool.promise(0, 200), "a model")
    assert late is not early
    assert sorted(memory.held.values()) == [100, 200]


def test_two_slots_of_one_model_never_share():
    """Two slots of one model are opened to run at the same time, whichever thread opens them."""
    memory = Memory()
    pool = ScratchPool(memory, slots=2)
    promise = pool.promise(0, 100)
    assert pool.take(promise, "a model") is not pool.take(promise, "a model")
    assert in_thread(lambda: pool.take(promise, "a model")).size_bytes == 100
    assert len(memory.held) == 3


def test_promises_are_what_is_still_to_come():
    """Each open slot takes its part of the promise away, each thread's block its scratch, and a model all of it."""
    pool = ScratchPool(Memory(), slots=2)
    first, second = pool.promise(10, 100), pool.promise(5, 300)
    assert pool.shared_bytes == 300
    assert pool.promised_bytes == 2 * (10 + 5 + 300)
    pool.take(first, "a model")
    first.slots_left -= 1
    assert pool.promised_bytes == (10 + 2 * 5) + 300
    del second
    gc.collect()
    assert pool.shared_bytes == 100
    assert pool.promised_bytes == 10 + 100
