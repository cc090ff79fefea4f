"""Too few file descriptors are refused before anything is started."""

from __future__ import annotations

import resource

import pytest

from trtd.config.model import Config
from trtd.errors import InvalidConfig
from trtd.supervisor import descriptors


def config(tenants: int, replicas: int = 1) -> Config:
    """A configuration with so many workers."""
    table = {"models": {"m": {"path": "/m.onnx"}}, "replicas": replicas}
    return Config.model_validate({"version": 1, "tenants": {f"t{number}": table for number in range(tenants)}})


def test_the_need_grows_with_the_workers():
    """More tenants and more replicas need more; a small configuration fits the smallest usual limit."""
    assert descriptors.needed_fds(config(1)) < 256
    assert descriptors.needed_fds(config(100)) < 1024
    assert (
        descriptors.needed_fds(config(20, replicas=50))
        > descriptors.needed_fds(config(20))
        > descriptors.needed_fds(config(1))
    )


def test_a_limit_that_is_too_low_is_named_with_the_need(monkeypatch):
    """One line with both numbers, and nothing is changed."""
    changed = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: changed.append(limits))
    with pytest.raises(InvalidConfig, match=r"open files is 40, and this configuration needs \d{3}: raise it"):
        descriptors.claim_fds(config(1))
    assert not changed


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch):
    """What the host allows is taken without being asked for it."""
    changed = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: changed.append(limits))
    descriptors.claim_fds(config(1))
    assert changed == [(resource.RLIMIT_NOFILE, (4096, 4096))]
