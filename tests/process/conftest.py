"""The fixture of the process tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.daemon import Daemon


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    with ExitStack() as stack:
        yield lambda *tenants, **sections: stack.enter_context(Daemon(*tenants, **sections))


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon], request: pytest.FixtureRequest) -> Any:
    daemon = make_daemon().start()
    daemon.wait_ready()
    return daemon
