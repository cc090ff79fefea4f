"""Where the sockets of a daemon are: one rule, shared by the daemon, the client library and the command line.

Pure: the environment and the user id are arguments. Making the directory and checking who owns it is the daemon's work.
"""

from __future__ import annotations

from collections.abc import Mapping

RUNTIME_DIR_VARIABLE = "TRTD_DAEMON__RUNTIME_DIR"
"""The same variable that sets `daemon.runtime_dir` in the configuration."""


def runtime_dir(environ: Mapping[str, str], uid: int) -> str:
    """The runtime directory where nobody names another one.

    `TRTD_DAEMON__RUNTIME_DIR`, else `/run/trtd` for root, else `$XDG_RUNTIME_DIR/trtd`, else `/tmp/trtd-UID`.
    """
    chosen = environ.get(RUNTIME_DIR_VARIABLE)
    if chosen:
        return chosen
    if uid == 0:
        return "/run/trtd"
    session = environ.get("XDG_RUNTIME_DIR")
    return f"{session}/trtd" if session else f"/tmp/trtd-{uid}"  # noqa: S108 - the daemon refuses it when others own it


def tenant_address(runtime_dir: str, tenant: str) -> str:
    """The ZeroMQ address at which clients of a tenant connect."""
    return f"ipc://{runtime_dir}/{tenant}.sock"


def arenas_path(runtime_dir: str, tenant: str) -> str:
    """The path of the unix socket at which clients of a tenant offer shared memory."""
    return f"{runtime_dir}/{tenant}.arenas"


def arenas_path_beside(address: str) -> str | None:
    """The path of the arenas' socket that belongs to a tenant's `ipc://` address; None for any other address."""
    path = address.removeprefix("ipc://")
    return None if path == address or not path.endswith(".sock") else f"{path.removesuffix('.sock')}.arenas"


def workers_path(runtime_dir: str) -> str:
    """The path of the unix socket at which the router waits for workers."""
    return f"{runtime_dir}/router/workers.sock"


def operator_path(runtime_dir: str) -> str:
    """The path of the operators' unix socket."""
    return f"{runtime_dir}/operator.sock"


def lock_path(runtime_dir: str) -> str:
    """The path of the file that the one daemon of a runtime directory holds locked."""
    return f"{runtime_dir}/daemon.lock"
