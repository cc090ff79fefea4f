"""What an exit stands for, and who pays for it."""

from __future__ import annotations

import signal

import pytest

from trtd.core.faults import ExitStatus, Fault, FaultKind, classify_early_exit, classify_exit
from trtd.errors import Blame, ExitCode


@pytest.mark.parametrize(
    ("code", "kind", "permanent", "blame"),
    [
        (ExitCode.OK, FaultKind.EXITED, False, Blame.TENANT),
        (1, FaultKind.EXITED, False, Blame.TENANT),
        (ExitCode.UNAVAILABLE, FaultKind.EXITED, False, Blame.TENANT),
        (ExitCode.BAD_DATA, FaultKind.BAD_MODEL, True, Blame.TENANT),
        (ExitCode.BAD_CONFIG, FaultKind.BAD_CONFIG, True, Blame.TENANT),
        (ExitCode.TEMPORARY, FaultKind.TEMPORARY, False, Blame.TENANT),
        (ExitCode.INTERNAL, FaultKind.EXITED, False, Blame.DAEMON),
        (255, FaultKind.EXITED, False, Blame.TENANT),
    ],
)
def test_exit_codes(code, kind, permanent, blame):
    """Each exit code of the vocabulary has its kind; an unknown one is a plain exit."""
    fault = classify_exit(ExitStatus(code=int(code)))
    assert (fault.kind, fault.permanent, fault.blame, fault.code) == (kind, permanent, blame, code)
    assert f"exit code {int(code)}" in fault.message or f"exited with code {code}" == fault.message


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_crash_signals_are_named(name):
    """A signal by which a process ends itself is a crash, and the message names it."""
    fault = classify_exit(ExitStatus(signal=int(getattr(signal, name))))
    assert (fault.kind, fault.message) == (FaultKind.CRASHED, f"crashed with {name}")


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (250, "signal 250")])
def test_other_signals_come_from_somebody(number, name):
    """Any other signal, known or not, is a kill."""
    fault = classify_exit(ExitStatus(signal=number))
    assert (fault.kind, fault.message, fault.code) == (FaultKind.KILLED, f"killed by {name}", number)


@pytest.mark.parametrize("blame", list(Blame))
def test_only_tenant_and_daemon_are_charged(blame):
    """Faults of devices and clients charge no budget, and nor does anything that was requested."""
    assert Fault(FaultKind.CRASHED, "x", blame=blame).is_charged == (blame in (Blame.TENANT, Blame.DAEMON))
    assert not Fault(FaultKind.REQUESTED, "x", blame=blame).is_charged


def test_what_ends_a_process():
    """A fault that is sticky or permanent ends the process that reports it."""
    assert Fault(FaultKind.CRASHED, "x").ends_process
    assert Fault(FaultKind.BAD_MODEL, "x", sticky=False, permanent=True).ends_process
    assert not Fault(FaultKind.OUT_OF_MEMORY, "x", sticky=False).ends_process


@pytest.mark.parametrize(
    ("code", "last_words", "permanent"),
    [
        (1, "ModuleNotFoundError: No module named 'trtd'", True),
        (1, "SyntaxError: invalid syntax", True),
        (2, "python3: can't open file", True),
        (int(ExitCode.INTERNAL), "trtd: malformed. The daemon runs another version than is installed here.", True),
        (1, "MemoryError", False),
        (1, "OSError: [Errno 24] Too many open files", False),
        (1, "ImportError: libz.so.1: failed to map segment: Cannot allocate memory", False),
    ],
)
def test_an_end_before_hello_says_whether_another_try_can_help(code, last_words, permanent):
    """What is not installed stays so; want of memory or descriptors passes. The last line of stderr is the evidence."""
    fault = classify_early_exit(ExitStatus(code=code), last_words)
    assert (fault.kind, fault.permanent, fault.blame) == (FaultKind.START_FAILED, permanent, Blame.DAEMON)
    assert fault.message == f"cannot start: {last_words} (exit code {code})"


@pytest.mark.parametrize("status", [ExitStatus(code=1), ExitStatus(code=75), ExitStatus(signal=11)])
def test_an_end_without_evidence_is_an_end_like_any_other(status):
    """Without a word, by a signal, or with a code that our own programs leave with, nothing is concluded."""
    words = "" if status.code == 1 else "some words"
    assert classify_early_exit(status, words) == classify_exit(status)
