"""All layers into one `Config` that knows where each value comes from.

In rising order: vendor defaults, the system's file, its `conf.d/*.toml` in the order of names, its
`tenants.d/NAME.toml` (each the table of one tenant), environment variables, flags. `--config FILE` takes the place of
the system's file, and then the `conf.d` and `tenants.d` beside FILE are read.

What rules over several keys refuse is in `trtd.config.checks`, accounts that do not exist in `trtd.config.accounts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtd.config.accounts import SYSTEM, Accounts, account_problems
from trtd.config.checks import cross_problems, tenants_problem
from trtd.config.environment import environment_layers
from trtd.config.files import FileLayers
from trtd.config.flags import Override, override_layers
from trtd.config.layers import Layer, merge
from trtd.config.model import Config
from trtd.config.origins import DEFAULT, Origins, Problem, invalid_config
from trtd.config.validation import validate, version_problem
from trtd.config.values import effective
from trtd.wire import addresses

VENDOR_FILE = Path("/usr/lib/trtd/trtd.toml")
SYSTEM_FILE = Path("/etc/trtd/trtd.toml")


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that a configuration is made of.

    Attributes:
        environ: environment variables.
        uid: of the daemon's user, for the default of `daemon.runtime_dir`.
        working_dir: absolute; relative paths in flags and variables start here.
        config_file: of `--config`; it has to exist.
        overrides: of flags.
        vendor_file: defaults of the package; need not exist.
        system_file: read without `config_file`; need not exist. None reads no such file, for a daemon that lives from
            flags alone.
        accounts: users and groups of this host.
    """

    environ: Mapping[str, str]
    uid: int
    working_dir: Path
    config_file: Path | None = None
    overrides: tuple[Override, ...] = ()
    vendor_file: Path | None = VENDOR_FILE
    system_file: Path | None = SYSTEM_FILE
    accounts: Accounts = SYSTEM


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    Attributes:
        config: the values; paths are absolute and `daemon.runtime_dir` is never empty.
        origins: of every value in `config`, by key path.
        files: those that were read, in rising order.
    """

    config: Config
    origins: Origins
    files: tuple[Path, ...]


def load(sources: Sources) -> Loaded:
    """Read all layers.

    Raises:
        trtd.errors.InvalidConfig: its `problems` name everything that is wrong, one line each.
    """
    files = _read_files(sources)
    working_dir = str(sources.working_dir)
    variables, wrong_variables = environment_layers(sources.environ, working_dir)
    layers = [*files.layers, *variables, *override_layers(sources.overrides, working_dir)]
    unread = [*files.problems, *_version_problems(layers)]
    if unread:
        # Of values nothing is told: what is missing may stand in what was not read.
        raise invalid_config([*unread, *wrong_variables], {})
    table, origins = merge(layers)
    too_many = tenants_problem(table)
    if too_many is not None:
        raise invalid_config([*wrong_variables, too_many], origins)
    _settle_runtime_dir(table, origins, sources)
    config = validate(table)
    if not isinstance(config, Config):
        raise invalid_config([*wrong_variables, *config], origins)
    broken = [*wrong_variables, *cross_problems(config), *account_problems(config, sources.accounts)]
    if broken:
        raise invalid_config(broken, origins)
    known = {path: origins.get(path, DEFAULT) for path, _ in effective(config)}
    return Loaded(config, known, tuple(files.files))


def _read_files(sources: Sources) -> FileLayers:
    files = FileLayers()
    if sources.vendor_file is not None:
        files.add(sources.vendor_file, is_required=False)
    main = sources.config_file or sources.system_file
    if main is not None:
        path = sources.working_dir / main
        files.add(path, is_required=sources.config_file is not None)
        files.add_neighbours(path)
    return files


def _version_problems(layers: list[Layer]) -> list[Problem]:
    return [
        Problem(("version",), text, layer.origin_of(("version",)))
        for layer in layers
        if (text := version_problem(layer.table)) is not None
    ]


def _settle_runtime_dir(table: dict[str, Any], origins: Origins, sources: Sources) -> None:
    """Fill in the runtime directory where no layer names one."""
    daemon = table.setdefault("daemon", {})
    if isinstance(daemon, dict) and daemon.get("runtime_dir", "") == "":
        found = addresses.runtime_dir(sources.environ, sources.uid)
        daemon["runtime_dir"] = str(sources.working_dir / found)
        origins.pop(("daemon", "runtime_dir"), None)
