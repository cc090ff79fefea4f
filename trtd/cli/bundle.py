"""`trtd support-bundle`: what somebody who is to help needs, in one archive, without secrets and tensors.

Each part is collected for itself; what cannot be had is told in its place. Every byte of text passes
`trtd.cli.redaction` on its way into the archive.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import trtd
from trtd.cli import doctor, operator
from trtd.cli.redaction import redact
from trtd.cli.serve import sources
from trtd.config import load as loading
from trtd.config.load import Loaded
from trtd.config.model import CONFIG_VERSION, Config
from trtd.config.show import show
from trtd.errors import ExitCode, InvalidConfig, TrtdError
from trtd.files import open_regular, read_regular
from trtd.wire.messages import WIRE_VERSION
from trtd.wire.operator import OPERATOR_VERSION
from trtd.wire.status import STATUS_VERSION

FOLDER = "trtd-support"
LOG_LINES = 2000
MAX_LOG_BYTES = 8 << 20
JOURNAL = ("journalctl", "--unit=trtd", f"--lines={LOG_LINES}", "--no-pager", "--output=short-iso", "--quiet")
MAX_KEY_BYTES = 64 * 1024
JOURNAL_TIMEOUT_S = 20.0
PACKAGES = (
    "numpy", "onnxruntime", "pyzmq", "msgpack", "pydantic", "structlog", "prometheus-client", "supervisor",
    "tensorrt", "tensorrt-lean", "tensorrt-dispatch", "tensorrt-rtx", "cuda-python", "nvidia-ml-py",
)  # fmt: skip


def bundle(args: argparse.Namespace) -> Path:
    """Write the archive, readable for this user alone, and return its path.

    Raises:
        OSError: the archive cannot be written.
    """
    path = Path(args.output or time.strftime(f"{FOLDER}-%Y%m%d-%H%M%S.tar.gz"))
    loaded, problems = _load(args)
    known = [] if loaded is None else list(_secrets(loaded))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in _parts(args, loaded, problems):
                _add(archive, name, redact(text, known))
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return path


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    entry = tarfile.TarInfo(f"{FOLDER}/{name}")
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))


def _load(args: argparse.Namespace) -> tuple[Loaded | None, str]:
    try:
        return loading.load(sources(argparse.Namespace(config=args.config))), ""
    except InvalidConfig as error:
        return None, "".join(f"{problem}\n" for problem in error.problems or [error.message])


def _secrets(loaded: Loaded) -> Iterator[str]:
    """What this user can read of the secrets that the configuration names."""
    path = loaded.config.router.curve_secret_key_file
    if path:
        with suppress(OSError, UnicodeDecodeError):
            yield from read_regular(path, MAX_KEY_BYTES).decode("utf-8").split()


def _parts(args: argparse.Namespace, loaded: Loaded | None, problems: str) -> Iterator[tuple[str, str]]:
    if loaded is None:
        yield "config-problems.txt", problems
    else:
        yield "config.toml", show(loaded.config, loaded.origins, with_origin=True)
    runtime_dir = args.runtime_dir or (loaded.config.daemon.runtime_dir if loaded else None)
    status = _attempt(lambda: operator.call(operator.find_runtime_dir(runtime_dir), "status", {}))
    yield "status.json", _json(status)
    yield "faults.json", _json(_faults(status))
    yield "versions.json", _json(_versions())
    yield "host.json", _json(_host())
    yield (
        "doctor.json",
        _json(_attempt(lambda: {"findings": doctor.examine_host(loaded.config if loaded else Config())})),
    )
    yield "log.txt", _log(args.log)


def _attempt(get: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return get()
    except TrtdError as error:
        cause = error.cause if isinstance(error, operator.CommandFailed) else error
        return {"error": {"code": str(cause.code), "message": cause.message}}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"


def _faults(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The last fault of every child, with what came before it."""
    tenants = status.get("tenants", [])
    children = [child for child in (status.get("router"), *(w for t in tenants for w in t["workers"])) if child]
    return [
        {key: child[key] for key in ("name", "state", "restarts", "last_fault", "history")}
        for child in children
        if child["last_fault"]
    ]


def _versions() -> dict[str, Any]:
    installed = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {
        "trtd": trtd.__version__,
        "python": sys.version,
        "executable": sys.executable,
        "protocols": {
            "wire": WIRE_VERSION, "operator": OPERATOR_VERSION, "status": STATUS_VERSION, "config": CONFIG_VERSION,
        },
        "packages": installed,
    }  # fmt: skip


def _host() -> dict[str, Any]:
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": pages * page_bytes,
        "load": os.getloadavg(),
        "is_systemd": Path("/run/systemd/system").is_dir(),
    }


def _log(file: str | None) -> str:
    """The last lines of a log file, or of the journal."""
    if file is not None:
        try:
            with open_regular(file) as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - MAX_LOG_BYTES))
                return _last_lines(log.read().decode("utf-8", "backslashreplace"))
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}\n"
    try:
        told = subprocess.run(
            JOURNAL, capture_output=True, text=True, errors="backslashreplace", timeout=JOURNAL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "no journal here; name the log file with --log\n"
    return _last_lines(told.stdout) or "the journal has no line of the unit trtd; name the log file with --log\n"


def _last_lines(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines()[-LOG_LINES:])


def show_path(path: Path, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """Tell where it is."""
    print(f"{path}: configuration, status, faults, versions, doctor's findings and log, without secrets")
    return ExitCode.OK
