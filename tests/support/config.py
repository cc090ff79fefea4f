"""A directory with configuration files, and how to load what is in it without looking at this host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trtd.config.accounts import Accounts
from trtd.config.flags import Override
from trtd.config.load import Loaded, Sources, load
from trtd.config.model import Config
from trtd.errors import InvalidConfig

USERS = {"alice": 1000, "bob": 1001}
GROUPS = {"ml": 500}
ACCOUNTS = Accounts(USERS.__getitem__, GROUPS.__getitem__)

MODEL = '[tenants.a.models.m]\npath = "m.onnx"\n'
"""The least of a tenant `a`."""


class ConfigDir:
    """Vendor file, system file and what is beside it, below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc"
        self.etc.mkdir()

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file, named from the root: `vendor.toml`, `etc/trtd.toml`, `etc/conf.d/x.toml`, ..."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def sources(
        self, *, environ: Mapping[str, str] | None = None, overrides: tuple[Override, ...] = (), **others: Any
    ) -> Sources:
        """All layers of this directory, for a user 1000 whose working directory is `work`."""
        given: dict[str, Any] = {
            "vendor_file": self.root / "vendor.toml",
            "system_file": self.etc / "trtd.toml",
            "working_dir": self.root / "work",
            "accounts": ACCOUNTS,
            "uid": 1000,
        }
        return Sources(environ=environ or {}, overrides=overrides, **(given | others))

    def load(self, text: str | None = None, **sources: Any) -> Loaded:
        """Load everything, `text` as the system's file."""
        if text is not None:
            self.write("etc/trtd.toml", text)
        return load(self.sources(**sources))

    def problems(self, text: str | None = None, **sources: Any) -> list[str]:
        """What loading reports, with the system file's name cut down to `trtd.toml`."""
        with pytest.raises(InvalidConfig) as caught:
            self.load(text, **sources)
        return [problem.replace(f"{self.etc}/", "").replace(f"{self.root}/", "") for problem in caught.value.problems]


def make_config(**tenants: dict[str, Any]) -> Config:
    """A configuration of these tenants, each with a model `m` unless it has its own; one tenant `a` by default."""
    tables = {
        name: {"models": {"m": {"path": f"/models/{name}.onnx"}}} | table
        for name, table in (tenants or {"a": {}}).items()
    }
    return Config.model_validate({"daemon": {"runtime_dir": "/run/trtd"}, "tenants": tables})
