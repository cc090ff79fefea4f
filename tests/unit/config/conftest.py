"""Configuration tests work on files below a directory of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config import ConfigDir


@pytest.fixture
def config_dir(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path)
