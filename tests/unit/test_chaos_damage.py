"""The damage that `scripts/chaos damage` does to plans, and how it sorts the refusals. No GPU is needed."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from tests.chaos.gpu.damage import SIZE_AT, damage_plan, reason
from tests.support.plans import make_plan

PLAN = make_plan(parts=(("ENGN", 5000), ("WGHT", 9000)))


def test_damage_is_of_every_kind_and_follows_the_seed():
    """All kinds come, each changes the plan nearly always, and a seed gives the same damage again."""
    made = [damage_plan(PLAN, random.Random(seed)) for seed in range(200)]
    assert {kind for kind, _ in made} == {"cut", "cut and told", "header", "flipped", "blocks"}
    assert sum(plan == PLAN for _, plan in made) < 10
    assert made == [damage_plan(PLAN, random.Random(seed)) for seed in range(200)]


def test_a_cut_that_is_told_is_not_seen_in_the_size():
    """The header agrees with the file, so that whoever reads only that finds nothing wrong with the size."""
    told = [plan for kind, plan in (damage_plan(PLAN, random.Random(seed)) for seed in range(400)) if "told" in kind]
    whole = [plan for plan in told if len(plan) >= SIZE_AT + 8]
    assert all(struct.unpack_from("<Q", plan, SIZE_AT) == (len(plan),) for plan in whole)
    assert len(whole) > 20


def test_reasons_are_counted_without_what_differs():
    """Paths, numbers and bytes are left out, so that equal reasons of different plans are one."""
    path = Path("/tmp/x/two_io.17.plan")
    told = f"model 'two_io': {path}: it is truncated: its header says 21924 bytes, the file has 99"
    assert reason(told, path) == "it is truncated: its header says N bytes, the file has N"
    assert reason("crashed with SIGSEGV", path) == "crashed with SIGSEGV"
