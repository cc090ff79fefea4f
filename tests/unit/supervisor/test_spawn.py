"""What a child is started with, as values."""

from __future__ import annotations

import fcntl
import os

import pytest

from trtd.supervisor import spawn


def test_the_environment_is_small_and_decided():
    """A child gets what it needs of the environment, thread counts, no telemetry, no secret and no notify socket."""
    ours = {"PATH": "/bin", "LD_LIBRARY_PATH": "/lib", "TRTD_DAEMON__RUNTIME_DIR": "/x", "SECRET": "s", "HOME": "/root"}
    ours |= {"ORT_DISABLE_TELEMETRY": "0"}
    ours |= {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1", "CREDENTIALS_DIRECTORY": "/c"}
    assert spawn.child_environment(ours, threads=3) == {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/lib",
        "HOME": "/root",
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "PYTHONFAULTHANDLER": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYDANTIC_DISABLE_PLUGINS": "__all__",
    }


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "CUDA_MPS_PIPE_DIRECTORY",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
        "CUDA_MPS_CLIENT_PRIORITY",
        "CUDA_CACHE_PATH",
        "NVIDIA_TF32_OVERRIDE",
    ],
)
def test_what_cuda_is_told_reaches_the_worker(name):
    """Devices, their order and limits of MPS come by the environment only, and a worker sees what doctor sees."""
    assert spawn.child_environment({name: "1"}, threads=1)[name] == "1"


def test_what_the_configuration_decides_does_not_come_by_the_environment():
    """How kernels are loaded is a key of the configuration; what a container runtime reads means nothing to a child."""
    ours = {"CUDA_MODULE_LOADING": "EAGER", "NVIDIA_VISIBLE_DEVICES": "all", "MYCUDA_X": "1"}
    assert not set(ours) & set(spawn.child_environment(ours, threads=1))


def test_a_missing_variable_stays_missing():
    """A variable that the daemon does not have is not passed on as an empty one."""
    assert "LD_LIBRARY_PATH" not in spawn.child_environment({"PATH": "/bin"}, threads=1)


def test_the_command_line_names_program_and_descriptors():
    """The child's program is a module of trtd, and its working directory is no place to import from."""
    argv = spawn.child_argv("worker", channel_fd=7, settings_fd=8, parent_pid=9)
    assert argv[1:] == [
        "-P", "-m", "trtd.worker.main", "--channel", "7", "--settings", "8", "--parent", "9",
    ]  # fmt: skip


def test_settings_cannot_be_changed_any_more():
    """The memory file gives its content from the start and refuses to be written, grown, shrunk or unsealed."""
    fd = spawn.sealed_memfd("settings", b"content")
    try:
        assert os.read(fd, 100) == b"content"
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 1),
            lambda: os.ftruncate(fd, 100),
            lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
        ):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)
