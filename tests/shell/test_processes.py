"""Real child processes under pidfds: their words, their deaths, their groups, their orphans."""

from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import is_running, wait_until
from tests.support.supervisor import Recorder, make_order, make_processes, run_instead
from trtd import observe
from trtd.core.faults import ExitStatus, Fault, FaultKind
from trtd.supervisor import spawn
from trtd.supervisor.processes import OUTBOX_MESSAGES, own_children
from trtd.wire.control import MAX_PACKET_BYTES, Stop, WorkerRevoked


def serve(monkeypatch, program, scenario, settings=b""):
    """Run one child with this program inside a scenario; what it leaves is ended."""
    run_instead(monkeypatch, program)

    async def run() -> Recorder:
        recorder = Recorder()
        processes = make_processes(recorder)
        try:
            process = processes.start("a/0", 1, make_order(settings))
            await scenario(recorder, processes, process)
        finally:
            assert processes.close() == []
        return recorder

    return asyncio.run(run())


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_exited(recorder, processes, process):
    await recorder.until(lambda: recorder.exited)


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("sys.exit(0)", ExitStatus(code=0)),
        ("os._exit(75)", ExitStatus(code=75)),
        ("os.kill(os.getpid(), signal.SIGKILL)", ExitStatus(signal=9)),
        ("os.kill(os.getpid(), signal.SIGSEGV)", ExitStatus(signal=11)),
    ],
)
def test_an_end_is_told_once_with_its_cause(monkeypatch, program, status):
    """An exit code or a signal comes back as the core's exit status, exactly once, and nothing is left open."""
    descriptors = open_descriptors()
    recorder = serve(monkeypatch, program, until_exited)
    assert recorder.exited == [status]
    assert open_descriptors() == descriptors


def test_last_words_come_before_the_end(monkeypatch):
    """Everything that a child said before it died is told before its death."""

    async def hear_too_late(recorder, processes, process):
        poller = select.poll()
        poller.register(process.spawned.pidfd, select.POLLIN)
        assert poller.poll(20_000), "the child ends while the loop stands still"
        await recorder.until(lambda: recorder.exited)

    recorder = serve(monkeypatch, "[beat(n) for n in range(150)]; os._exit(0)", hear_too_late)
    assert [message.progress for message in recorder.said] == list(range(150))
    assert recorder.order == ["said"] * 150 + ["exited"]


def test_nonsense_is_told_as_such(monkeypatch):
    """A packet that is no message is reported with a reason, and what follows is heard."""
    program = "import socket; socket.socket(fileno=os.dup(channel.fileno())).send(b'nonsense'); beat(); os._exit(0)"
    recorder = serve(monkeypatch, program, until_exited)
    assert recorder.order == ["babbled", "said", "exited"]
    assert "\n" not in recorder.babbled[0]


def test_a_child_has_its_settings_and_little_else(monkeypatch):
    """The child reads its settings from its descriptor; its stdin is empty, and its process group is its own."""
    program = """
assert os.fdopen(settings_fd, "rb").read() == b"settings of a/0"
assert sys.stdin.read() == ""
assert os.getpgrp() == os.getpid()
assert sorted(map(int, os.listdir("/proc/self/fd")))[:3] == [0, 1, 2]
os._exit(len([fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}")]))
"""
    recorder = serve(monkeypatch, program, until_exited, settings=b"settings of a/0")
    assert recorder.exited == [ExitStatus(code=2)], "the channel and our stderr are open beside the standard streams"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import no_such_part", "No module named 'no_such_part'"),
        ("sys.stderr.write('one\\ntwo'); os._exit(1)", "one\ntwo"),
        ("os._exit(1)", ""),
        ("os.write(2, b'x' * 100_000); os._exit(1)", "x" * spawn.FIRST_WORDS_BYTES),
    ],
)
def test_what_a_child_writes_that_never_says_hello_is_kept(monkeypatch, program, words):
    """Its stderr comes with its end, however much it is: nobody has to read it meanwhile, and it does not grow."""
    recorder = serve(monkeypatch, program, until_exited)
    assert recorder.exited == [ExitStatus(code=1)]
    assert recorder.first_words.endswith(words)
    assert len(recorder.first_words) <= spawn.FIRST_WORDS_BYTES


def test_a_kill_takes_the_whole_group(monkeypatch):
    """SIGKILL reaches the child and what it started."""
    pids = []

    async def kill(recorder, processes, process):
        await recorder.until(lambda: recorder.said)
        pids.append(recorder.said[0].progress)
        processes.kill("a/0", 1)
        await recorder.until(lambda: recorder.exited)

    program = "pid = os.fork()\nif pid: beat(pid)\ntime.sleep(600)"
    recorder = serve(monkeypatch, program, kill)
    assert recorder.exited == [ExitStatus(signal=9)]
    wait_until(lambda: not is_running(pids[0]), "the end of the grandchild")


def test_what_a_child_leaves_behind_goes_with_it(monkeypatch):
    """When a child ends by itself, the rest of its group is ended too."""
    pids = []

    async def scenario(recorder, processes, process):
        await until_exited(recorder, processes, process)
        pids.append(recorder.said[0].progress)

    serve(monkeypatch, "pid = os.fork()\nif pid: beat(pid); os._exit(0)\ntime.sleep(600)", scenario)
    wait_until(lambda: not is_running(pids[0]), "the end of the grandchild")


def test_orphans_outside_of_the_group_are_swept():
    """A grandchild that made a session of its own comes to the subreaper when its parent dies, and is ended."""
    code = """
import asyncio, os, signal, sys
import pytest
from tests.support.supervisor import Recorder, make_order, make_processes, run_instead
from tests.support.daemon import is_running, wait_until
from trtd.supervisor.processes import become_subreaper, own_children
become_subreaper()
program = "pid = os.fork()\\nif pid: beat(pid); os._exit(0)\\nos.setsid()\\ntime.sleep(600)"
async def run():
    recorder = Recorder()
    processes = make_processes(recorder)
    loop = asyncio.get_running_loop()
    swept = asyncio.Event()
    def sweep():
        processes.sweep()
        if not own_children() and recorder.exited:
            swept.set()
    loop.add_signal_handler(signal.SIGCHLD, sweep)
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_instead(monkeypatch, program)
        processes.start("a/0", 1, make_order())
        await recorder.until(lambda: recorder.exited)
        sweep()
        async with asyncio.timeout(20):
            await swept.wait()
    wait_until(lambda: not is_running(recorder.said[0].progress), "the end of the orphan")
asyncio.run(run())
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert outcome.returncode == 0, outcome.stderr


def test_a_child_that_does_not_read_blocks_nobody(monkeypatch):
    """Messages for a child that does not read are kept up to a bound, then refused; it gets them when it reads."""
    count = 2000
    told = []

    async def scenario(recorder, processes, process):
        await recorder.until(lambda: recorder.said)
        told.extend(processes.tell("a/0", 1, Stop()) for _ in range(OUTBOX_MESSAGES + count))
        os.kill(process.pid, signal.SIGUSR1)
        await recorder.until(lambda: recorder.exited)

    program = f"""
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
beat()
signal.sigwait([signal.SIGUSR1])
for _ in range({OUTBOX_MESSAGES}): assert isinstance(channel.receive(), control.Stop)
os._exit(0)
"""
    recorder = serve(monkeypatch, program, scenario)
    assert recorder.exited == [ExitStatus(code=0)]
    assert told[:OUTBOX_MESSAGES] == [True] * OUTBOX_MESSAGES
    assert False in told


def test_a_message_that_cannot_be_written_holds_up_no_other(monkeypatch):
    """A message longer than a packet is dropped with a word in the log; those after it arrive."""

    async def scenario(recorder, processes, process):
        await recorder.until(lambda: recorder.said)
        processes.tell("a/0", 1, WorkerRevoked("a", 0, 1, Fault(FaultKind.CRASHED, "x" * MAX_PACKET_BYTES)))
        assert processes.tell("a/0", 1, Stop()) is True
        await recorder.until(lambda: recorder.exited)

    written = io.StringIO()
    observe.configure("json", stream=written)
    program = "beat(); assert isinstance(channel.receive(), control.Stop); os._exit(0)"
    recorder = serve(monkeypatch, program, scenario)
    observe.configure()
    assert recorder.exited == [ExitStatus(code=0)]
    assert "channel.message_dropped" in written.getvalue()


def test_a_child_that_is_gone_hears_nothing(monkeypatch):
    """Telling and killing a child that has ended does nothing and says so."""

    async def scenario(recorder, processes, process):
        await recorder.until(lambda: recorder.exited)
        assert processes.tell("a/0", 1, Stop()) is False
        processes.kill("a/0", 1)

    serve(monkeypatch, "os._exit(0)", scenario)


def test_a_program_that_cannot_be_started_is_an_error(monkeypatch):
    """Where the interpreter is missing, starting raises and leaves nothing behind."""
    monkeypatch.setattr("trtd.supervisor.spawn.child_argv", lambda *_, **__: ["/does/not/exist"])
    descriptors = open_descriptors()

    async def run():
        processes = make_processes(Recorder())
        with pytest.raises(FileNotFoundError):
            processes.start("a/0", 1, make_order())
        assert processes.live == {}

    asyncio.run(run())
    assert open_descriptors() == descriptors


def test_own_children_are_known():
    """A process sees its children, the ended ones included, until it reaps them."""
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    assert child.pid in own_children()
    child.wait(20)
    assert child.pid not in own_children()
