"""The samples in `etc/` are complete, true and loadable."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from trtd.config.model import Config
from trtd.config.sample import MODEL, TENANT, full_sample
from trtd.config.schema import Leaf, Named, find, leaves, schema
from trtd.config.values import effective

ETC = Path(__file__).parents[3] / "etc"
FULL = (ETC / "trtd.toml").read_text(encoding="utf-8")
SWITCHED_ON = re.sub(r"^#(?! )", "", FULL, flags=re.MULTILINE)


def keys_of(table: dict[str, Any], at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for key, value in table.items():
        found |= keys_of(value, (*at, key)) if isinstance(value, dict) else {(*at, key)}
    return found


def named(path: tuple[str, ...]) -> tuple[str, ...]:
    """A key path of the sample with NAME in the place of its example names."""
    return tuple("NAME" if isinstance(find(path[:index]), Named) else key for index, key in enumerate(path))


def test_the_full_sample_is_what_the_model_says():
    """`etc/trtd.toml` is the generated text; `python -m trtd.config.sample > etc/trtd.toml` writes it anew."""
    assert full_sample() == FULL


def test_the_full_sample_has_every_key():
    """Each key of the model stands in the sample, switched on or off, and no other does."""
    assert {named(path) for path in keys_of(tomllib.loads(SWITCHED_ON))} == {path for path, _ in leaves(schema())}


def test_the_full_sample_changes_nothing(config_dir):
    """The sample as it is loads to the defaults, with no tenant."""
    loaded = config_dir.load(FULL)
    assert loaded.config == config_dir.load("").config
    shown = {path for path, origin in loaded.origins.items() if str(origin) != "default"}
    assert shown | {("daemon", "runtime_dir")} == {path for path, leaf in leaves(schema()) if path[0] != "tenants"}


def test_everything_in_the_full_sample_can_be_switched_on(config_dir):
    """With every setting switched on, a secret key added, it loads; what has a default shows that default."""
    loaded = config_dir.load(SWITCHED_ON, environ={"TRTD_ROUTER__CURVE_SECRET_KEY_FILE": "/key"})
    tenant = loaded.config.tenants[TENANT]
    assert tenant.tcp is not None
    assert tenant.models[MODEL].probe is not None
    for path, value in effective(loaded.config):
        leaf = find(path)
        assert isinstance(leaf, Leaf)
        if leaf.default is not None and path not in {
            ("daemon", "runtime_dir"),
            ("router", "curve_secret_key_file"),
        }:
            assert value == leaf.default, path


@pytest.mark.parametrize("path", [path for path, _ in leaves(schema())], ids=".".join)
def test_every_key_has_a_meaning(path):
    """Each key of the model says in one line what it means."""
    leaf = find(path)
    assert isinstance(leaf, Leaf)
    if path[-1] != "NAME":
        assert leaf.description
        assert "\n" not in leaf.description
        assert leaf.default is not None or leaf.example is not None


def test_the_minimal_sample_loads(config_dir):
    """The minimal sample is a configuration of one tenant, all else default."""
    loaded = config_dir.load((ETC / "trtd-minimal.toml").read_text(encoding="utf-8"))
    assert list(loaded.config.tenants) == ["demo"]
    given = [path for path, origin in loaded.origins.items() if str(origin) != "default"]
    assert given == [("tenants", "demo", "models", "resnet", "path")]


def test_unit_and_section_order_hold_for_every_model():
    """Keys with values stand before tables in every model, as the sample and `show` rely on."""

    def check(node: Any) -> None:
        if isinstance(node, Named):
            check(node.item)
        elif not isinstance(node, Leaf):
            kinds = [isinstance(child, Leaf) for child in node.keys.values()]
            assert kinds == sorted(kinds, reverse=True), list(node.keys)
            for child in node.keys.values():
                check(child)

    check(schema())
    assert Config.model_fields.keys() == schema().keys.keys()
