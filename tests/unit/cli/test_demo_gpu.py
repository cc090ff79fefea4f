"""`trtd demo --gpu` before it needs a GPU: plans and references are found, and the configuration can be used."""

from __future__ import annotations

import lzma

import numpy as np
import pytest

from tests.support.plans import make_plan
from trtd.cli import demo_gpu
from trtd.config.load import Sources, load
from trtd.demo import plans
from trtd.errors import InvalidConfig


@pytest.fixture
def source(tmp_path):
    """A directory as the demo wants it, with plans and references without meaning; one plan is packed."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "references").mkdir()
    for number, name in enumerate(name for names in demo_gpu.TENANTS.values() for name in names):
        plan = make_plan()
        path = tmp_path / "plans" / f"{name}.plan"
        if number == 1:
            path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(plan))
        else:
            path.write_bytes(plan)
        model = name.partition(".")[0]
        arrays = {}
        for case in plans.CASES:
            arrays[f"{case}.in.x"] = np.zeros(2, np.float32)
            arrays[f"{case}.out.{demo_gpu.OUTPUTS[model]}"] = np.ones(2, np.float32)
        np.savez(tmp_path / "references" / f"{model}.ref.npz", **arrays)
    return tmp_path


def test_plans_and_questions_are_brought(source, tmp_path):
    """Each tenant gets a question for each case of each of its plans, judged by that plan's own difference."""
    home = tmp_path / "home"
    home.mkdir()
    questions = demo_gpu.bring_plans(source, home)
    assert {tenant: len(asked) for tenant, asked in questions.items()} == {"ranking": 3, "vision": 6, "language": 3}
    assert sorted(path.name for path in home.iterdir()) == sorted(
        f"{name}.plan" for names in demo_gpu.TENANTS.values() for name in names
    )
    question = questions["ranking"][0]
    allowed = plans.allowed_difference("mlp")
    assert question.is_answered_by(np.full(2, 1 + 0.9 * allowed, np.float32))
    assert not question.is_answered_by(np.full(2, 1 + 1.2 * allowed, np.float32))


def test_its_configuration_can_be_used(source, tmp_path):
    """Every key is known, and faults are allowed in one tenant only."""
    demo_gpu.bring_plans(source, tmp_path)
    path = demo_gpu.write_config(tmp_path)
    config = load(Sources(environ={}, uid=1000, working_dir=tmp_path, config_file=path, vendor_file=None)).config
    assert list(config.tenants) == list(demo_gpu.TENANTS)
    assert [name for name, table in config.tenants.items() if table.debug.allow_faults] == [demo_gpu.victim()]
    assert {table.runtime for table in config.tenants.values()} == {"tensorrt"}


def test_what_is_missing_is_named(source, tmp_path):
    """A directory without plans, and a plan that is not there, are told with their names."""
    with pytest.raises(InvalidConfig, match="has no directory plans"):
        plans.check_directory(tmp_path / "references")
    with pytest.raises(InvalidConfig, match=r"no plan .*/plans/other\.plan and no other\.plan\.xz beside it"):
        plans.unpack_plan(source, "other", tmp_path)
