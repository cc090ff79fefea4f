"""The accounts of shared memory: bounds, owners, ranges, and bytes that add up whatever happens in which order."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from trtd.core.arenas import MAX_ARENAS, MAX_ARENAS_PER_CONNECTION, Arena, ArenaBook
from trtd.errors import ArenaUnknown, ErrorCode, Malformed, TrtdError

OWNERS = st.sampled_from(["ann", "bob"])
LIMIT = 1000


def make_arena(key: int = 1, size_bytes: int = 100, owner: str = "ann") -> Arena:
    return Arena(key, size_bytes, owner, fd=-1)


def code_of(book: ArenaBook, size_bytes: int, count_of_connection: int = 0) -> ErrorCode | None:
    refusal = book.judge(size_bytes, count_of_connection)
    return refusal.code if refusal else None


def problem_of(book: ArenaBook, *place: Any) -> TrtdError:
    with pytest.raises(TrtdError) as caught:
        book.find(*place)
    return caught.value


def test_all_arenas_share_the_limit():
    """An arena that could never fit is too large; one that does not fit now may fit later, up to the last byte."""
    book = ArenaBook(LIMIT)
    assert code_of(book, LIMIT) is None
    assert code_of(book, LIMIT + 1) == ErrorCode.TOO_LARGE
    book.add(make_arena(1, LIMIT - 1))
    assert code_of(book, 1) is None
    assert code_of(book, 2) == ErrorCode.OVERLOADED
    book.withdraw(1)
    assert code_of(book, 2) == ErrorCode.OVERLOADED
    book.end(LIMIT - 1)
    assert code_of(book, LIMIT) is None


def test_a_limit_of_nothing_takes_nothing():
    """Where the limit is 0 no arena enters, and the refusal says so."""
    refusal = ArenaBook(0).judge(1, 0)
    assert refusal is not None
    assert (refusal.code, refusal.message) == (ErrorCode.TOO_LARGE, "the tenant takes no shared memory")


def test_arenas_are_counted():
    """A connection and a tenant have a bounded number of arenas, however small these are."""
    book = ArenaBook(LIMIT * LIMIT)
    assert code_of(book, 1, MAX_ARENAS_PER_CONNECTION - 1) is None
    assert code_of(book, 1, MAX_ARENAS_PER_CONNECTION) == ErrorCode.OVERLOADED
    for key in range(MAX_ARENAS):
        assert code_of(book, 1) is None
        book.add(make_arena(key, 1))
    assert code_of(book, 1) == ErrorCode.OVERLOADED
    book.end(1)
    assert code_of(book, 1) is None


@pytest.mark.parametrize(("offset", "size"), [(0, 100), (0, 0), (100, 0), (64, 36), (99, 1)])
def test_places_inside_are_found(offset, size):
    """Every place up to the last byte of its arena is found by the owner."""
    book = ArenaBook(LIMIT)
    arena = make_arena()
    book.add(arena)
    assert book.find("ann", 1, offset, size) is arena


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (101, 0), (64, 37), (2**64 - 1, 1), (1, 2**64 - 1)])
def test_places_outside_are_refused(offset, size):
    """One byte beyond the end is malformed, and numbers that would wrap around elsewhere are too."""
    book = ArenaBook(LIMIT)
    book.add(make_arena())
    assert isinstance(problem_of(book, "ann", 1, offset, size), Malformed)


def test_nothing_leaks_about_the_arenas_of_others():
    """A key that nobody has, one of another owner, and one that was withdrawn get the same words."""
    book = ArenaBook(LIMIT)
    book.add(make_arena(1))
    book.add(make_arena(2))
    book.withdraw(2)
    problems = [problem_of(book, *place) for place in (("ann", 3, 0, 1), ("bob", 1, 0, 1), ("ann", 2, 0, 1))]
    assert all(isinstance(problem, ArenaUnknown) for problem in problems)
    assert len({problem.message for problem in problems}) == 1
    # Not even where the place would not lie in it.
    assert isinstance(problem_of(book, "bob", 1, 0, LIMIT), ArenaUnknown)


def test_an_arena_is_let_go_when_it_is_withdrawn():
    """The book keeps no withdrawn arena alive: whoever still names it decides when it ends."""
    book = ArenaBook(LIMIT)
    arena = make_arena()
    book.add(arena)
    seen = weakref.ref(arena)
    held = book.find("ann", 1, 0, 1)
    del arena
    book.withdraw(1)
    assert seen() is held
    del held
    assert seen() is None


@dataclass(eq=False)
class Told:
    """An arena as the test knows it."""

    key: int
    size_bytes: int
    owner: str
    is_named: bool = True
    holds: list[Arena] = field(default_factory=list)


class Accounts(RuleBasedStateMachine):
    """Random lives of arenas of two tenants, with requests that hold them."""

    @initialize()
    def begin(self) -> None:
        self.books = [ArenaBook(LIMIT), ArenaBook(LIMIT)]
        self.told: list[list[Told]] = [[], []]
        self.keys = 0

    def end(self, book: ArenaBook, told: list[Told], arena: Told) -> None:
        told.remove(arena)
        book.end(arena.size_bytes)

    @rule(tenant=st.integers(0, 1), size=st.integers(1, LIMIT + 1), owner=OWNERS)
    def offer(self, tenant: int, size: int, owner: str) -> None:
        book, told = self.books[tenant], self.told[tenant]
        fits = sum(arena.size_bytes for arena in told) + size <= LIMIT
        assert (book.judge(size, 0) is None) == fits
        if fits:
            self.keys += 1
            arena = Arena(self.keys, size, owner, fd=-1)
            entry = Told(self.keys, size, owner)
            told.append(entry)
            weakref.finalize(arena, self.end, book, told, entry).atexit = False
            book.add(arena)

    @rule(tenant=st.integers(0, 1), at=st.integers(0, 50))
    def withdraw(self, tenant: int, at: int) -> None:
        if self.told[tenant]:
            arena = self.told[tenant][at % len(self.told[tenant])]
            arena.is_named = False
            self.books[tenant].withdraw(arena.key)

    @rule(of=st.integers(0, 1), by=st.integers(0, 1), owner=OWNERS, at=st.integers(0, 50), offset=st.integers(0, LIMIT))
    def name(self, of: int, by: int, owner: str, at: int, offset: int) -> None:
        """A request of a tenant's owner names an arena of the same or the other tenant."""
        if not self.told[of]:
            return
        arena = self.told[of][at % len(self.told[of])]
        try:
            found = self.books[by].find(owner, arena.key, offset, 1)
        except ArenaUnknown:
            assert not (of == by and arena.is_named and arena.owner == owner)
        except Malformed:
            assert of == by
            assert arena.is_named
            assert arena.owner == owner
            assert offset + 1 > arena.size_bytes
        else:
            assert of == by
            assert arena.is_named
            assert arena.owner == owner
            assert (found.key, offset + 1 <= found.size_bytes) == (arena.key, True)
            arena.holds.append(found)

    @rule(tenant=st.integers(0, 1), at=st.integers(0, 50))
    def answer(self, tenant: int, at: int) -> None:
        """The requests that name an arena are done."""
        if self.told[tenant]:
            self.told[tenant][at % len(self.told[tenant])].holds.clear()

    @invariant()
    def bytes_add_up(self) -> None:
        """What the book counts are exactly the arenas that are named or held, of each tenant by itself."""
        for book, told in zip(self.books, self.told, strict=True):
            assert book.held_bytes == sum(arena.size_bytes for arena in told)
            assert book.count == len(told)
            assert book.held_bytes <= LIMIT
            assert all(arena.is_named or arena.holds for arena in told)
            assert all((arena.key in book) == arena.is_named for arena in told)

    def teardown(self) -> None:
        for book, told in zip(self.books, self.told, strict=True):
            for arena in list(told):
                book.withdraw(arena.key)
                arena.holds.clear()
            gc.collect()
            assert (book.held_bytes, book.count, told) == (0, 0, [])


def test_the_accounts_add_up():
    """Whatever happens in which order, bytes are counted exactly, and no tenant or owner gets at another's arena."""
    run_state_machine_as_test(Accounts, settings=settings(max_examples=60, stateful_step_count=40))
