"""The layers that are files: which are read, in which order, and what is wrong with one that cannot be."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from trtd.config.layers import Layer
from trtd.config.lines import key_lines
from trtd.config.origins import Origin, Problem
from trtd.config.schema import KeyPath

DROP_INS = "conf.d"
TENANT_FILES = "tenants.d"

_POSITION = re.compile(r" \((?:at line (?P<line>\d+), column \d+|at end of document)\)$")


class FileLayers:
    """Collects the layers of files and the problems with them, in rising order."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.files: list[Path] = []
        self.problems: list[Problem] = []

    def add(self, path: Path, *, is_required: bool) -> None:
        """Read one file; one that need not exist is passed over when it does not."""
        self._read(path, tenant=None, is_required=is_required)

    def add_neighbours(self, path: Path) -> None:
        """Read what stands beside a configuration file: `conf.d/*.toml`, then `tenants.d/*.toml`, sorted by name."""
        for found in self._listed(path.parent / DROP_INS):
            self._read(found, tenant=None, is_required=True)
        for found in self._listed(path.parent / TENANT_FILES):
            self._read(found, tenant=found.stem, is_required=True)

    def _listed(self, directory: Path) -> list[Path]:
        """The TOML files of a directory; hidden ones are an editor's and do not count."""
        try:
            found = [path for path in directory.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(Problem((), f"cannot be listed: {_reason(error)}", Origin(str(directory))))
            return []
        return sorted(found, key=lambda path: path.name)

    def _read(self, path: Path, *, tenant: str | None, is_required: bool) -> None:
        """Add the layer of one file; the whole file is one tenant's table where `tenant` is given."""
        try:
            text = path.read_bytes().decode("utf-8")
        except FileNotFoundError as error:
            if is_required:
                self._refuse(path, f"cannot be read: {_reason(error)}")
            return
        except OSError as error:
            self._refuse(path, f"cannot be read: {_reason(error)}")
            return
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self._refuse(path, f"is not UTF-8 text: byte 0x{error.object[error.start]:02x} is out of place", line)
            return
        table = self._parse(path, text)
        if table is None:
            return
        lines = key_lines(text)
        if tenant is not None:
            table = {"tenants": {tenant: table}}
        depth = 0 if tenant is None else 2

        def origin_of(key: KeyPath) -> Origin:
            return Origin(str(path), lines.get(key[depth:]))

        self.files.append(path)
        self.layers.append(Layer(table, origin_of, str(path.parent)))

    def _parse(self, path: Path, text: str) -> dict[str, Any] | None:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            position = _POSITION.search(str(error))
            line = (int(position["line"]) if position["line"] else text.count("\n") + 1) if position else None
            self._refuse(path, f"is not valid TOML: {_POSITION.sub('', str(error))}", line)
        except RecursionError:
            self._refuse(path, "is not valid TOML: nested too deep")
        except ValueError:
            self._refuse(path, "is not valid TOML: a number or a date is out of range")
        return None

    def _refuse(self, path: Path, text: str, line: int | None = None) -> None:
        self.problems.append(Problem((), text, Origin(str(path), line)))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
