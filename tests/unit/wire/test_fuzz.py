"""The fuzzer itself: a short run is clean, it repeats, and it notices a decoder that lets something through."""

from __future__ import annotations

import pytest

from tests.support import fuzz
from trtd.wire import codec, headers


def test_a_short_run_is_clean() -> None:
    """Some thousand mutants give typed refusals only, within little memory, and some are accepted by each decoder."""
    report = fuzz.run(3000, seed=1)
    assert report.failures == []
    assert report.most_bytes < 64 * 1024 * 1024
    assert report.decodes == 3000 * len(fuzz.TARGETS)
    for target in fuzz.TARGETS:
        assert report.outcomes[target.name, "accepted"] > 0
        assert report.outcomes[target.name, "malformed"] > 0


def test_a_mutant_depends_on_seed_and_index_alone() -> None:
    """A finding replays without the mutants before it."""
    assert [fuzz.mutant(5, index) for index in range(50)] == [fuzz.mutant(5, index) for index in reversed(range(50))][
        ::-1
    ]
    assert fuzz.mutant(5, 7) != fuzz.mutant(6, 7)


def test_a_check_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of names, the fuzzer reports what gets through, with its bytes."""
    monkeypatch.setattr(headers, "check_name", lambda value, _: value)
    monkeypatch.setattr(headers, "name", lambda fields, key: fields.get(key))
    failures = fuzz.run(3000, seed=1).failures
    assert any("client: " in line for line in failures)


def test_an_exception_of_another_kind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is no typed refusal is a failure with seed and index."""
    monkeypatch.setattr(codec, "_check_keys", lambda *args: {}[args[2]])
    failures = fuzz.run(200, seed=3).failures
    assert failures
    assert failures[0].startswith("seed 3 index ")
    assert "KeyError" in failures[0]
