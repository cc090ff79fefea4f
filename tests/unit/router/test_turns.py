"""Endpoints are read in turns: a flooded one gets its share and no more."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from trtd.core.ids import TenantName
from trtd.router.callers import Caller, Route
from trtd.router.endpoints import Received
from trtd.router.turns import MAX_ASKED, MAX_READ_S, MAX_READS, MESSAGE_COST_BYTES, TURN_BYTES, ReadTurns


class FakePort:
    """A port with so many messages of one size."""

    def __init__(self, count: int) -> None:
        self.count = count

    def has_input(self) -> bool:
        return self.count > 0


class FakeEndpoint:
    """An endpoint that is only a name."""

    def __init__(self, tenant: str) -> None:
        self.tenant = TenantName(tenant)


class FakeSource:
    """A source of messages of one size."""

    def __init__(self, endpoint: FakeEndpoint, count: int, size: int = 1000) -> None:
        self.endpoint = endpoint
        self.port: Any = FakePort(count)
        self.size = size
        self.vain_reads = 0

    def read(self) -> Received | None:
        if not self.port.count:
            self.vain_reads += 1
            return None
        self.port.count -= 1
        return Caller(Route(self.port, b""), "uid:0", ""), b"", [], self.size, None


class FakeClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_turns(*sources: Any, weights: dict[str, int] | None = None, clock: FakeClock | None = None) -> ReadTurns:
    """Turns in which every source is awake."""
    turns = ReadTurns(clock or FakeClock())
    for source in sources:
        turns.add(source.endpoint.tenant, (weights or {}).get(source.endpoint.tenant, 1))
        turns.wake(source)
    return turns


def read(turns: ReadTurns, rounds: int = 1) -> Counter[str]:
    """How many messages of each tenant so many turns of the loop take."""
    taken: Counter[str] = Counter()
    for _ in range(rounds):
        turns.read(lambda endpoint, _: taken.update([endpoint.tenant]) or 1)
    return taken


def test_one_turn_of_the_loop_reads_a_bounded_number():
    """However much waits, the loop comes back to results and to the supervisor soon."""
    turns = make_turns(FakeSource(FakeEndpoint("a"), 10_000))
    assert read(turns)["a"] == MAX_READS
    assert turns.has_input


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("weight", [1, 100])
@pytest.mark.parametrize(("took_s", "most"), [(0.4 * MAX_READ_S, 3), (5 * MAX_READ_S, 1)])
def test_one_turn_of_the_loop_reads_for_a_bounded_time(others, weight, took_s, most):
    """Messages that take long, such as those with very long headers, are read a few at a time; each turn reads one."""
    clock = FakeClock()
    sources = [FakeSource(FakeEndpoint(name), 100, size=10) for name in "abc"[: 1 + others]]
    turns = make_turns(*sources, weights={"a": weight}, clock=clock)

    def take(*_: object) -> int:
        clock.now += took_s
        return 1

    for read_before in range(0, 60, most):
        turns.read(take)
        assert sum(100 - source.port.count for source in sources) == read_before + most
    assert turns.has_input


def test_a_flood_does_not_keep_others_waiting():
    """A single message of another tenant is read after at most one turn of the flooded one."""
    flooded, other = FakeSource(FakeEndpoint("a"), 10_000), FakeSource(FakeEndpoint("b"), 1)
    order: list[str] = []
    turns = make_turns(flooded, other)
    turns.read(lambda endpoint, _: order.append(endpoint.tenant) or 1)
    assert order.index("b") <= TURN_BYTES // MESSAGE_COST_BYTES


def test_two_floods_share_by_bytes():
    """Of two flooded tenants the one with the larger messages has fewer of them read."""
    small, large = FakeSource(FakeEndpoint("a"), 100_000, 1000), FakeSource(FakeEndpoint("b"), 100_000, 100_000)
    taken = read(make_turns(small, large), 500)
    ratio = taken["a"] * (1000 + MESSAGE_COST_BYTES) / (taken["b"] * (100_000 + MESSAGE_COST_BYTES))
    assert 0.8 < ratio < 1.25


def test_weights_count():
    """A tenant of weight 3 has three times as much read."""
    taken = read(
        make_turns(
            FakeSource(FakeEndpoint("a"), 100_000), FakeSource(FakeEndpoint("b"), 100_000), weights={"a": 3, "b": 1}
        ),
        300,
    )
    assert 2.7 < taken["a"] / taken["b"] < 3.3


def test_both_sockets_of_a_tenant_are_read():
    """A tenant's sockets share its turns; neither starves."""
    endpoint = FakeEndpoint("a")
    first, second = FakeSource(endpoint, 1000), FakeSource(endpoint, 1000)
    turns = make_turns(first)
    turns.wake(second)
    read(turns, 20)
    assert first.port.count < 1000
    assert second.port.count < 1000


def test_what_is_read_empty_sleeps():
    """A source without input takes part no more until it is woken."""
    source = FakeSource(FakeEndpoint("a"), 3)
    turns = make_turns(source)
    assert read(turns)["a"] == 3
    assert not turns.has_input
    source.port.count = 1
    turns.wake(source)
    turns.wake(source)
    assert read(turns)["a"] == 1
    assert not turns.has_input


def test_a_closed_source_is_read_no_more():
    """Dropping a source, or removing its tenant, takes it out of the turns."""
    first, second = FakeSource(FakeEndpoint("a"), 5), FakeSource(FakeEndpoint("b"), 5)
    turns = make_turns(first, second)
    turns.drop(first)  # type: ignore[arg-type]  # a fake
    turns.remove(TenantName("b"))
    assert read(turns) == Counter()
    assert not turns.has_input


@pytest.mark.parametrize("tenants", ["a", "ab"])
@pytest.mark.parametrize(("count", "vain_reads"), [(1, 0), (MAX_ASKED, 0), (MAX_ASKED + 1, 1)])
def test_few_messages_are_read_without_a_read_in_vain(tenants, count, vain_reads):
    """A source is asked whether it has more where that is cheaper than to find out by reading; all is read."""
    sources = [FakeSource(FakeEndpoint(tenant), count, size=0) for tenant in tenants]
    turns = make_turns(*sources, weights=dict.fromkeys(tenants, 100))
    assert read(turns) == dict.fromkeys(tenants, count)
    assert [source.vain_reads for source in sources] == [vain_reads] * len(sources)
    assert not turns.has_input or len(tenants) > 1


def test_a_bundle_counts_as_what_is_in_it():
    """A message with many requests uses up a turn as they would one by one."""
    turns = make_turns(FakeSource(FakeEndpoint("a"), 10_000))
    taken = 0

    def take(_endpoint: Any, _received: Received) -> int:
        nonlocal taken
        taken += 10
        return 10

    turns.read(take)
    assert MAX_READS <= taken < MAX_READS + 10
