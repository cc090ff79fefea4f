"""Fixtures of the shells: a real router with the test around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support import users
from tests.support.arenas import Offerer
from tests.support.router import RouterClient, RouterProcess, StandInWorker, make_endpoint, make_router_settings
from trtd.wire.control import RouterReady
from trtd.wire.settings import TenantEndpoint


class RouterBench:
    """A router with one open tenant `a`, and the means to add clients, workers, tenants and further routers."""

    def __init__(self, directory: Path, context: zmq.Context[Any]) -> None:
        self.directory = directory
        self.context = context
        self._open: list[Any] = []
        self.settings = make_router_settings(directory)
        self.router: RouterProcess | Any = None

    def start(self, nofile: int | None = None, **settings: Any) -> RouterProcess:
        """A router process that is ready, with so many descriptors where given; a former one is killed."""
        if self.router is not None:
            self.router.close()
        self.settings = make_router_settings(self.directory, **settings)
        self.router = RouterProcess(self.settings, nofile)
        self.router.expect(RouterReady)
        return self.router

    def tenant(self, name: str = "a", **fields: Any) -> TenantEndpoint:
        """An open tenant."""
        endpoint = make_endpoint(self.directory, name, **fields)
        self.router.open_tenant(endpoint)
        return endpoint

    def client(self, tenant: str = "a", **options: Any) -> RouterClient:
        """A client of a tenant."""
        return self._keep(RouterClient(self.context, f"ipc://{self.directory}/{tenant}.sock", **options))

    def offerer(self, tenant: str = "a", directory: Path | None = None) -> Offerer:
        """A connection on which arenas of a tenant can be offered."""
        path = (directory or self.directory) / f"{tenant}.arenas"
        self.router.wait_until(path.exists)
        return self._keep(Offerer(path))

    def arenas_held(self) -> int:
        """How many memfds of clients the router has open."""
        return sum(name.startswith("/memfd:arena") for name in self.router.fds())

    def connect(self, address: str, **options: Any) -> RouterClient:
        """A client at an address of its own."""
        return self._keep(RouterClient(self.context, address, **options))

    def worker(self, tenant: str = "a", **fields: Any) -> StandInWorker:
        """A worker that is admitted and attached."""
        worker = self.stranger(tenant, **fields)
        self.router.tell(worker.admitted)
        worker.attach()
        return worker

    def stranger(self, tenant: str = "a", **fields: Any) -> StandInWorker:
        """A worker of which nobody has said anything yet."""
        return self._keep(StandInWorker(self.settings, tenant, **fields))

    def _keep(self, thing: Any) -> Any:
        self._open.append(thing)
        return thing

    def close(self) -> None:
        for thing in reversed(self._open):
            thing.close()
        self.router.close()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every user may enter."""
    with users.public_directory() as directory:
        yield directory


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RouterBench]:
    context: zmq.Context[Any] = zmq.Context()
    made = RouterBench(tmp_path, context)
    made.start()
    made.tenant()
    yield made
    made.close()
    context.destroy(linger=0)
