"""The layers that are files: which are read, in which order, and what is wrong with one that cannot be."""

from __future__ import annotations

from pathlib import Path

from trtd.config.layers import Layer
from trtd.config.lines import key_lines
from trtd.config.origins import Origin, Problem
from trtd.config.schema import KeyPath
from trtd.config.toml import NotToml, parse
from trtd.files import read_regular, under_way

DROP_INS = "conf.d"
TENANT_FILES = "tenants.d"
MAX_FILE_BYTES = 8 * 1024 * 1024
"""Some ten thousand tenants; more than that is another file by mistake."""


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
            with under_way(str(directory)):
                found = [path for path in directory.iterdir() if path.suffix == ".toml" and path.name[0] != "."]
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(Problem((), f"cannot be listed: {_reason(error)}", Origin(str(directory))))
            return []
        return sorted(found, key=lambda path: path.name)

    def _read(self, path: Path, *, tenant: str | None, is_required: bool) -> None:
        """Add the layer of one file; the whole file is one tenant's table where `tenant` is given."""
        try:
            text = read_regular(str(path), MAX_FILE_BYTES).decode("utf-8")
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
        try:
            table = parse(text)
        except NotToml as error:
            self._refuse(path, error.text, error.line)
            return
        lines = key_lines(text)
        if tenant is not None:
            table = {"tenants": {tenant: table}}
        depth = 0 if tenant is None else 2

        def origin_of(key: KeyPath) -> Origin:
            return Origin(str(path), lines.get(key[depth:]))

        self.files.append(path)
        self.layers.append(Layer(table, origin_of, str(path.parent)))

    def _refuse(self, path: Path, text: str, line: int | None = None) -> None:
        self.problems.append(Problem((), text, Origin(str(path), line)))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
