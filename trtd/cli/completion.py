"""`trtd completion`: a shell's completion script, or the names that such a script asks for while somebody types.

Nobody reads an error between two keystrokes: where neither daemon nor configuration tells names, there are none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from trtd.cli import operator
from trtd.errors import ExitCode, TrtdError


def completion(args: argparse.Namespace) -> str:
    """The script of a shell, or names, one per line."""
    if args.what == "tenants":
        return _lines(_models())
    if args.what == "models":
        return _lines(_models().get(args.tenant or "", ()))
    from trtd.manual import completions

    made: str = getattr(completions, args.what)()
    return made


def _models() -> dict[str, list[str]]:
    """Models of each tenant: from the daemon that runs, else from the configuration that one would be started with."""
    try:
        status = operator.call(operator.find_runtime_dir(None), "status", {})
    except TrtdError:
        return _configured_models()
    return {tenant["name"]: [model["name"] for model in tenant["models"]] for tenant in status["tenants"]}


def _configured_models() -> dict[str, list[str]]:
    from trtd.cli.serve import sources
    from trtd.config import load as loading

    try:
        config = loading.load(sources(argparse.Namespace(config=None))).config
    except TrtdError:
        return {}
    return {
        name: [model.name or table for table, model in tenant.models.items()] for name, tenant in config.tenants.items()
    }


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in dict.fromkeys(names))


def show(text: str, args: argparse.Namespace) -> int:  # noqa: ARG001 - every renderer takes the arguments
    """Print it as it is."""
    print(text, end="")
    return ExitCode.OK
