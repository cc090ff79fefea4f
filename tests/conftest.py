"""Markers by folder; every test has a sentence that says what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDERS = ("shell", "process", "gpu", "chaos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        function = getattr(item, "function", None)
        if function is not None and not (function.__doc__ or "").strip():
            raise pytest.UsageError(f"{item.nodeid} does not say in one sentence what is expected")
