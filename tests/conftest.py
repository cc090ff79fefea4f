"""Markers by folder; every test has a sentence that says what is expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from trtd.core.privacy import TELEMETRY_OFF

# Tests import packages by themselves too. Those that look at what trtd's own processes send take it away again.
os.environ.update(TELEMETRY_OFF)

# The same examples in every run: a test that fails here fails everywhere. TRTD_EXPLORE=1 looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("exploring", deadline=None, print_blob=True)
settings.load_profile("exploring" if os.environ.get("TRTD_EXPLORE") else "repeatable")

FOLDERS = ("shell", "process", "gpu", "chaos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        function = getattr(item, "function", None)
        if function is not None and not (function.__doc__ or "").strip():
            raise pytest.UsageError(f"{item.nodeid} does not say in one sentence what is expected")
