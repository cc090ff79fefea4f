"""How many file descriptors the daemon needs, compared with its limit before anything is started.

A daemon that runs out of them crashes again and again, because each try needs the same number.
"""

from __future__ import annotations

import resource

from trtd.config.model import Config
from trtd.errors import InvalidConfig

OWN_FDS = 64
"""Of the supervisor: sockets, operators, HTTP, and what is open only while a child is started."""
FDS_OF_CHILD = 3
"""Of the supervisor for each child: its end, its channel, its cgroup."""
ROUTER_FDS = 96
"""Of the router: itself, libzmq, and some clients."""
ROUTER_FDS_OF_TENANT = 6
"""Its endpoints, and some clients."""


def needed_fds(config: Config) -> int:
    """The least with which the daemon can do its work: what its most demanding process needs."""
    tenants = config.tenants.values()
    # While workers are replaced, each tenant has one more than its replicas.
    workers = sum(tenant.replicas + 1 for tenant in tenants)
    supervisor = OWN_FDS + FDS_OF_CHILD * (workers + 2)
    return max(supervisor, ROUTER_FDS + ROUTER_FDS_OF_TENANT * len(config.tenants) + workers)


def claim_fds(config: Config) -> None:
    """Take as many descriptors as the host allows, for the daemon and its children.

    Raises:
        trtd.errors.InvalidConfig: they are too few for this configuration.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = needed_fds(config)
    if hard != resource.RLIM_INFINITY and hard < need:
        raise InvalidConfig(
            f"the limit of open files is {hard}, and this configuration needs {need}: raise it (LimitNOFILE= of the"
            " service, or ulimit -n), or serve fewer tenants and replicas"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
