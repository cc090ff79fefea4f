"""What a reload takes over and what waits for a restart."""

from __future__ import annotations

import pytest

from tests.support.config import make_config
from trtd.config.model import Config, Reload
from trtd.config.reload import FIXED_SECTIONS, reloaded
from trtd.config.schema import leaves, schema
from trtd.errors import InvalidConfig


def changed(config: Config, **sections: object) -> Config:
    """The configuration with these values in its sections."""
    return Config.model_validate(config.model_dump() | sections)


def test_tenants_and_operators_are_taken_over():
    """A reload takes tenants and operators as they are wanted, and reports nothing."""
    running = make_config(a={})
    wanted = changed(make_config(a={"weight": 2}, b={}), operators={"viewer_users": ["alice"]})
    outcome = reloaded(running, wanted, {})
    assert outcome.config == wanted
    assert outcome.needs_restart == ()


def test_what_children_were_told_keeps_its_running_value():
    """Sections that need a restart keep their running values, and each changed key is named."""
    running = make_config()
    wanted = changed(
        running, log={"level": "debug"}, daemon={"runtime_dir": "/elsewhere", "beat_every_s": 0.1}, version=1
    )
    outcome = reloaded(running, wanted, {})
    assert outcome.config == running
    assert outcome.needs_restart == ("log.level", "daemon.runtime_dir")


def test_tenants_that_need_what_cannot_change_are_refused():
    """A first tcp endpoint together with its key file needs a restart, and the reload says so by the broken rule."""
    running = make_config()
    wanted = changed(make_config(a={"tcp": {"listen": "*:5000"}}), router={"curve_secret_key_file": "/key"})
    with pytest.raises(InvalidConfig, match=r"tenants\.a\.tcp\.listen: a tcp endpoint needs router"):
        reloaded(running, wanted, {})


def test_every_section_is_of_one_kind():
    """Top-level sections change with a reload or not as a whole."""
    for key, node in schema().keys.items():
        needs_restart = {leaf.reload is Reload.DAEMON for _, leaf in leaves(node)}
        assert needs_restart == {key in FIXED_SECTIONS}
