"""Plugins are registered before plans are loaded; a library that others could have written is code of nobody's."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from trtd.errors import InvalidConfig
from trtd.runtime.tensorrt.recorder import ErrorBook


@pytest.fixture
def plugins(import_with_cuda):
    """The module."""
    return import_with_cuda("trtd.runtime.tensorrt.plugins")


class Bindings(SimpleNamespace):
    """A TensorRT that notes what is registered; `handle` is what its registry gives for a library."""

    def __init__(self, handle="a handle"):
        self.calls = []
        self.book = ErrorBook()
        registry = SimpleNamespace(load_library=self.load_library, error_recorder=None)
        self.handle, self.registry = handle, registry
        super().__init__(
            init_libnvinfer_plugins=lambda logger, space: self.calls.append(("own", logger, space)) or True,
            get_plugin_registry=lambda: registry,
        )

    def load_library(self, path):
        """As the registry does: what it has to say goes to its own recorder."""
        self.calls.append(("library", path))
        if self.handle is None:
            self.registry.error_recorder.note(3, "No creator returned")
        return self.handle


@pytest.fixture
def build(tmp_path):
    """Builds a shared library that exports some functions."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed here")

    def build_one(*names):
        source = tmp_path / "plugin.c"
        source.write_text("\n".join(f"int {name}(void) {{ return 0; }}" for name in names), encoding="ascii")
        library = tmp_path / "libplugin.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
        library.chmod(0o644)
        return library

    return build_one


def test_tensorrts_own_plugins_are_registered(plugins):
    """The full TensorRT's are, with its logger; a lean one has none, and that is no failure."""
    bindings = Bindings()
    plugins.register_plugins(bindings, "logger", bindings.book, (), bindings.book)
    assert bindings.calls == [("own", "logger", "")]
    plugins.register_plugins(SimpleNamespace(), "logger", None, (), bindings.book)


def test_a_library_that_the_registry_takes_is_given_to_it(plugins, build):
    """A library with TensorRT's entry point is loaded through its registry, by its path."""
    bindings, library = Bindings(), build("getCreators")
    plugins.register_plugins(bindings, None, bindings.book, (str(library),), bindings.book)
    assert bindings.calls[1:] == [("library", str(library))]
    assert bindings.registry.error_recorder is None, "the registry lives longer than what it would call"


def test_a_library_that_registers_by_itself_is_only_loaded(plugins, build):
    """Without that entry point it is loaded, and its own start does the rest."""
    bindings, library = Bindings(), build("something")
    plugins.register_plugins(bindings, None, bindings.book, (str(library),), bindings.book)
    assert bindings.calls[1:] == []


def test_a_library_that_the_registry_refuses_is_told(plugins, build):
    """TensorRT gives no handle: the configuration is bad, and the line says which library and why."""
    bindings, library = Bindings(handle=None), build("getCreators")
    with pytest.raises(InvalidConfig, match=f"the plugins of {library} cannot be registered: No creator returned"):
        plugins.register_plugins(bindings, None, bindings.book, (str(library),), bindings.book)


def test_what_is_no_library_is_told(plugins, tmp_path):
    """A file that is no shared library, or is not there, is refused in one line with its name."""
    bindings, text = Bindings(), tmp_path / "text.so"
    text.write_text("no library", encoding="ascii")
    text.chmod(0o644)
    with pytest.raises(InvalidConfig, match=r"plugin_libraries: .*text\.so"):
        plugins.register_plugins(bindings, None, bindings.book, (str(text),), bindings.book)
    with pytest.raises(InvalidConfig, match=r"missing\.so: no such file"):
        plugins.register_plugins(bindings, None, bindings.book, (str(tmp_path / "missing.so"),), bindings.book)


def test_only_what_others_cannot_write_is_trusted(plugins, tmp_path):
    """File, directories above it, and what a link leads to: none may be writable by everyone."""
    place = tmp_path / "place"
    place.mkdir()
    library = place / "lib.so"
    library.write_bytes(b"x")
    library.chmod(0o644)
    link = tmp_path / "link.so"
    link.symlink_to(library)
    assert plugins.untrusted(library) == plugins.untrusted(link) == ""
    library.chmod(0o646)
    assert "lib.so can be written by everyone (mode 0646)" in plugins.untrusted(link)
    library.chmod(0o644)
    place.chmod(0o777)
    assert "place can be written by everyone (mode 0777)" in plugins.untrusted(link)
    place.chmod(0o1777)
    assert plugins.untrusted(link) == "", "a directory in which each may change only his own"
    place.chmod(0o755)
    assert "is not a regular file" in plugins.untrusted(place)
    fifo = place / "fifo"
    os.mkfifo(fifo)
    assert "is not a regular file" in plugins.untrusted(fifo)


def test_a_stranger_is_not_trusted(plugins, tmp_path, monkeypatch):
    """A library of another user than root and the daemon's is refused, with the user."""
    library = tmp_path / "lib.so"
    library.write_bytes(b"x")
    library.chmod(0o644)
    stat = os.stat

    def of_a_stranger(path, **how):
        status = stat(path, **how)
        if str(path).endswith("lib.so"):
            return os.stat_result((*status[:4], 12345, *status[5:]))
        return status

    monkeypatch.setattr(os, "stat", of_a_stranger)
    assert "lib.so belongs to uid 12345, not to root or to uid" in plugins.untrusted(library)
