"""Finding, claiming and using a delegated cgroup, on a tree that looks like one; and what this machine offers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trtd.supervisor import cgroup
from trtd.supervisor.cgroup import NotDelegated


def make_tree(
    root: Path, own: str = "system.slice/trtd.service", controllers: str = "cpu memory pids", mounted: str = "/"
) -> Path:
    """A fake root with cgroup v2 mounted; returns the directory of our cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"1:name=systemd:/x\n0::/{own}\n", encoding="ascii")
    (root / "proc/self/mountinfo").write_text(
        "22 1 0:20 / /proc rw - proc proc rw\n"
        f"30 23 0:26 {mounted} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
        encoding="ascii",
    )
    directory = root / "sys/fs/cgroup" / own.removeprefix(mounted.strip("/")).strip("/")
    directory.mkdir(parents=True)
    base = directory.parent if directory.name == cgroup.SUBGROUP else directory
    for path in {base, directory}:
        (path / "cgroup.controllers").write_text(controllers + "\n", encoding="ascii")
        (path / "cgroup.procs").write_text("", encoding="ascii")
        (path / "cgroup.subtree_control").write_text("", encoding="ascii")
    return directory


def test_a_delegated_cgroup_is_divided(tmp_path):
    """We move into a leaf, hand the controllers down, and each worker gets a cgroup with its limits."""
    own = make_tree(tmp_path)
    delegation = cgroup.claim(tmp_path)
    assert delegation.base == own
    assert (own / "supervisor/cgroup.procs").read_text(encoding="ascii") == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text(encoding="ascii") == "+memory +pids"
    group = delegation.make("a.0.1", 1 << 30)
    group.add(4711)
    files = {path.name: path.read_text(encoding="ascii") for path in group.path.iterdir()}
    assert files == {
        "memory.max": str(1 << 30), "memory.oom.group": "1", "pids.max": "4096", "cgroup.procs": "4711",
    }  # fmt: skip


def test_no_limit_is_told_as_max(tmp_path):
    """A worker without a memory limit still gets a cgroup, with its number of tasks bounded."""
    make_tree(tmp_path)
    group = cgroup.claim(tmp_path).make("a.0.1", 0)
    assert (group.path / "memory.max").read_text(encoding="ascii") == "max"


def test_the_subgroup_of_systemd_is_left_alone(tmp_path):
    """With DelegateSubgroup=supervisor we are in a leaf already, and its parent is divided."""
    own = make_tree(tmp_path, own="system.slice/trtd.service/supervisor")
    assert cgroup.claim(tmp_path).base == own.parent
    assert (own / "cgroup.procs").read_text(encoding="ascii") == ""


def test_a_cgroup_namespace_is_understood(tmp_path):
    """Where only a part of the hierarchy is mounted, as in a container, paths start at that part."""
    own = make_tree(tmp_path, own="box/inner", mounted="/box")
    assert cgroup.own_group(tmp_path) == own


def test_leftovers_of_an_earlier_daemon_are_removed(tmp_path):
    """Empty cgroups of workers that a killed daemon left are removed at the start."""
    own = make_tree(tmp_path)
    (own / "worker-a.0.7").mkdir()
    cgroup.claim(tmp_path)
    assert not (own / "worker-a.0.7").exists()


def test_kills_for_memory_are_counted(tmp_path):
    """The kernel's own count tells whether a worker died of its limit."""
    make_tree(tmp_path)
    group = cgroup.claim(tmp_path).make("a.0.1", 4096)
    assert group.oom_kills() == 0
    (group.path / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 2\n", encoding="ascii")
    assert group.oom_kills() == 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "proc/self/cgroup").write_text("1:memory:/x\n"), "in no cgroup v2"),
        (lambda root: (root / "proc/self/cgroup").unlink(), "not readable"),
        (lambda root: (root / "proc/self/mountinfo").write_text("1 1 0:1 / / rw - ext4 x rw\n"), "no cgroup v2 is m"),
        (lambda root: (root / "sys/fs/cgroup/box/cgroup.controllers").write_text("cpu\n"), "no controller memory and"),
        (lambda root: (root / "sys/fs/cgroup/box/cgroup.subtree_control").unlink(), "not writable"),
        (lambda root: (root / "sys/fs/cgroup/box/supervisor").write_text(""), "cannot be divided"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(tmp_path, spoil, reason):
    """Without a usable cgroup the answer is one line that says what is missing."""
    make_tree(tmp_path, own="box")
    spoil(tmp_path)
    with pytest.raises(NotDelegated, match=reason):
        cgroup.claim(tmp_path)


def test_an_unset_limit_leaves_no_cgroup_behind(tmp_path, monkeypatch):
    """When a limit cannot be set, the half-made cgroup is removed and the error comes out."""
    make_tree(tmp_path)
    delegation = cgroup.claim(tmp_path)

    def refuse(self, *args, **kwargs):
        raise OSError(22, "no")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="no"):
        delegation.make("a.0.1", 1)
    assert not (delegation.base / "worker-a.0.1").exists()
