"""One configuration, worked out: everything that may fail is done here, before anything of it is applied."""

from __future__ import annotations

import os
from dataclasses import dataclass

from trtd.config.load import Loaded
from trtd.config.model import Config
from trtd.core.fleet import ROUTER, TenantSpec
from trtd.core.ids import WorkerKey
from trtd.core.lifecycle import Timeouts
from trtd.core.restarts import RestartPolicy
from trtd.supervisor import settings
from trtd.supervisor.model_files import Look, identities
from trtd.supervisor.peers import Roles
from trtd.supervisor.spawn import ChildOrder
from trtd.wire.control import encode_settings
from trtd.wire.settings import Listener, TenantEndpoint, Trial


@dataclass(frozen=True, slots=True)
class Plan:
    """What the daemon does under one configuration.

    Attributes:
        loaded: the configuration and where its values come from.
        specs: for the fleet.
        endpoints: for the router, by tenant.
        roles: who may use the operators' socket.
        log_format: of children, `json` or `console`.
    """

    loaded: Loaded
    specs: tuple[TenantSpec, ...]
    endpoints: dict[str, TenantEndpoint]
    roles: Roles
    log_format: str

    @property
    def config(self) -> Config:
        """The configuration itself."""
        return self.loaded.config

    @property
    def router_timeouts(self) -> Timeouts:
        """Patience with the router."""
        return settings.timeouts(self.config.router.health)

    @property
    def router_restarts(self) -> RestartPolicy:
        """When a dead router is started again."""
        return settings.restart_policy(self.config.router.restart)

    @property
    def max_starting(self) -> int:
        """How many workers may load at one time."""
        return self.config.daemon.max_starting or len(os.sched_getaffinity(0))

    def router_order(self, generation: int, listeners: tuple[Listener, ...] = (), flight_fd: int = -1) -> ChildOrder:
        """How one life of the router is started; it inherits the daemon's sockets, and what the former one left."""
        told = settings.router_settings(self.config, generation, self.log_format, listeners, flight_fd)
        fds = sorted({listener.fd for listener in listeners} | {flight_fd} - {-1})
        return ChildOrder("router", encode_settings(told), inherited_fds=tuple(fds))

    def worker_order(self, key: WorkerKey, generation: int, trials: tuple[Trial, ...] = ()) -> ChildOrder:
        """How one life of a worker is started; it learns what former ones have found out about their models."""
        told = settings.worker_settings(self.config, key.tenant, key.replica, generation, self.log_format, trials)
        answers = told.max_answer_bytes
        return ChildOrder("worker", encode_settings(told), threads=told.threads, max_answer_bytes=answers)

    def memory_limit_bytes(self, name: str) -> int:
        """The memory limit of a child, 0 for none."""
        if name == ROUTER:
            return self.config.router.memory_limit_bytes
        return self.config.tenants[name.partition("/")[0]].memory.limit_bytes


def make_plan(loaded: Loaded, own_uid: int, look: Look = identities, *, is_terminal: bool) -> Plan:
    """Work a configuration out. It reads the account databases and looks at model files, which may take its time.

    Args:
        loaded: the configuration.
        own_uid: the daemon's user.
        look: looks at the files of a tenant.
        is_terminal: whether stderr is a terminal.

    Raises:
        trtd.errors.InvalidConfig: a user or group does not exist on this host.
    """
    config = loaded.config
    return Plan(
        loaded=loaded,
        specs=settings.tenant_specs(config, look),
        endpoints={name: settings.tenant_endpoint(config, name) for name in config.tenants},
        roles=settings.operator_roles(config, own_uid),
        log_format=settings.log_format(config, is_terminal=is_terminal),
    )
