"""`trtd serve`, `trtd config` and `trtd version`: what needs the configuration or nothing, and no daemon."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import trtd
from trtd.cli.file_checks import file_problems
from trtd.config import load as loading
from trtd.config.flags import DEFAULT_TENANT, Override, model_overrides
from trtd.config.load import Loaded, Sources
from trtd.config.origins import invalid_config
from trtd.config.show import show
from trtd.errors import ExitCode, InvalidConfig, Usage
from trtd.wire import addresses


def sources(args: argparse.Namespace) -> Sources:
    """Where the configuration comes from, by environment and flags.

    A daemon that lives from `--model` alone reads no file of the system's.
    """
    models = getattr(args, "model", [])
    flags = {
        "--runtime-dir": (("daemon", "runtime_dir"), getattr(args, "runtime_dir", None)),
        "--log-format": (("log", "format"), getattr(args, "log_format", None)),
        "--log-level": (("log", "level"), getattr(args, "log_level", None)),
    }
    overrides = tuple(Override(flag, path, value) for flag, (path, value) in flags.items() if value is not None)
    return Sources(
        environ=dict(os.environ),
        uid=os.getuid(),
        working_dir=_working_dir(),
        config_file=Path(args.config) if args.config else None,
        overrides=(*model_overrides(models), *overrides),
        system_file=None if models and not args.config else loading.SYSTEM_FILE,
    )


def _working_dir() -> Path:
    """Where relative paths of flags start.

    Raises:
        Usage: it was deleted meanwhile.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise Usage("the working directory does not exist any more; change to one that does") from None


def serve(args: argparse.Namespace) -> int:
    """Run the daemon until it is told to stop; the exit code is the daemon's."""
    from trtd.supervisor import main as supervisor

    chosen = sources(args)
    loaded = _load(chosen)
    if args.model:
        _check_models(loaded)
        _say_how_to_call(loaded)
    return supervisor.serve(loaded, lambda: _load(chosen))


def _load(chosen: Sources) -> Loaded:
    """The configuration of a daemon. One without tenants is a mistake, at a reload too: it would end everything."""
    loaded = loading.load(chosen)
    if not loaded.config.tenants:
        raise InvalidConfig("no tenant is configured; name tenants in /etc/trtd/trtd.toml or give --model FILE.onnx")
    return loaded


def _check_models(loaded: Loaded) -> None:
    """Who names a model by hand is told at once that it cannot be served; nothing is started.

    Raises:
        InvalidConfig: a file cannot be used.
    """
    own = ("tenants", DEFAULT_TENANT)
    broken = [problem for problem in file_problems(loaded.config) if problem.path[:2] == own]
    if broken:
        raise invalid_config(broken, loaded.origins)


def _say_how_to_call(loaded: Loaded) -> None:
    runtime_dir = loaded.config.daemon.runtime_dir
    is_found = runtime_dir == addresses.runtime_dir(os.environ, os.getuid())
    where = "" if is_found else f" --runtime-dir {runtime_dir}"
    print(f"tenant {DEFAULT_TENANT} will be at {addresses.tenant_address(runtime_dir, DEFAULT_TENANT)}; call it with:")
    for model in loaded.config.tenants[DEFAULT_TENANT].models:
        print(f"  trtd infer {DEFAULT_TENANT} {model}{where}", flush=True)


def exit_code(code: int, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """The daemon said what it had to say in its log."""
    return code


def config(args: argparse.Namespace) -> Loaded | InvalidConfig:
    """Load the configuration without starting anything."""
    try:
        return loading.load(sources(args))
    except InvalidConfig as error:
        if args.action == "show":
            raise
        return error


def show_config(answer: Loaded | InvalidConfig, args: argparse.Namespace) -> int:
    """Print every problem, or every value. With a file that cannot be used a daemon starts and does not serve all."""
    if isinstance(answer, InvalidConfig):
        for problem in answer.problems:
            print(problem)
        return ExitCode.BAD_CONFIG
    if args.action == "show":
        print(show(answer.config, answer.origins, with_origin=args.origin), end="")
    else:
        files = ", ".join(str(file) for file in answer.files) or "no file"
        valid = f"valid: {len(answer.config.tenants)} tenants, from {files}"
        broken = file_problems(answer.config)
        print(f"{valid}; but what they name cannot be used:" if broken else valid)
        for found in broken:
            print(found.line(answer.origins))
        if broken:
            return ExitCode.BAD_CONFIG
    return ExitCode.OK


def version(args: argparse.Namespace) -> str:  # noqa: ARG001 - every handler takes the arguments
    """The version of the package."""
    return trtd.__version__


def show_version(answer: str, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """Print it."""
    print(f"trtd {answer}")
    return ExitCode.OK
