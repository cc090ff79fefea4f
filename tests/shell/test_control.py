"""The operators' socket itself: roles, patience, bounds; with handlers of the test's own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import shutil
import socket
import stat
from pathlib import Path

import pytest

from trtd import observe
from trtd.cli import operator
from trtd.errors import DeadlineExceeded, Overloaded
from trtd.supervisor import control
from trtd.supervisor.control import CommandFailed, ControlServer
from trtd.supervisor.peers import Roles
from trtd.wire.operator import OPERATOR_COMMANDS, Role

EVERYBODY = Roles(own_uid=os.geteuid())


class NotRoot(Roles):
    """Roles that do not know root, so that tests may run as root."""

    def role_of(self, peer):
        return None


class Viewers(Roles):
    """Roles in which everybody may look."""

    def role_of(self, peer):
        return Role.VIEWER


async def answer_with_args(args, progress):
    return {"args": args}


def serve(tmp_path, scenario, roles=EVERYBODY, handlers=None, **options):
    """Run a scenario with a server; the scenario gets `ask` and the path of the socket."""
    path = str(tmp_path / "operator.sock")

    async def ask(line):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        lines = [json.loads(part) async for part in reader]
        writer.close()
        await writer.wait_closed()
        return lines

    async def run():
        every = {row.name: answer_with_args for row in OPERATOR_COMMANDS}
        server = ControlServer(path, {**every, **(handlers or {})}, lambda: roles, **options)
        await server.start()
        try:
            async with asyncio.timeout(20):
                return await scenario(ask, path)
        finally:
            await server.close()

    return asyncio.run(run())


def command(name, **args):
    return {"v": 1, "command": name, "args": args}


def test_a_command_gets_its_checked_arguments(tmp_path):
    """Arguments arrive with their types; those that were left out are None."""

    async def scenario(ask, path):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o666
        return await ask(command("drain", tenant="a", timeout_s=3))

    assert serve(tmp_path, scenario) == [{"ok": {"args": {"tenant": "a", "all": None, "timeout_s": 3.0}}}]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({}, "needs the argument 'tenant'"),
        ({"tenant": 1}, "'tenant' of restart is a string"),
        ({"tenant": "a", "timeout_s": "3"}, "a number of seconds above 0"),
        ({"tenant": "a", "timeout_s": True}, "a number of seconds above 0"),
        ({"tenant": "a", "timeout_s": 0}, "a number of seconds above 0"),
        ({"tenant": "a", "force": True}, "takes no argument 'force'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, args, problem):
    """A missing, unknown or wrongly typed argument is a usage error that names it."""
    (answer,) = serve(tmp_path, lambda ask, _: ask(command("restart", **args)))
    assert answer["error"]["code"] == "usage"
    assert problem in answer["error"]["message"]


@pytest.mark.parametrize("timeout", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(tmp_path, timeout):
    """A timeout that is no number of seconds is a usage error."""
    line = f'{{"v": 1, "command": "drain", "args": {{"all": true, "timeout_s": {timeout}}}}}\n'.encode()
    (answer,) = serve(tmp_path, lambda ask, _: ask(line))
    assert answer["error"]["code"] == "usage"


@pytest.mark.parametrize("row", OPERATOR_COMMANDS, ids=lambda row: row.name)
def test_a_stranger_may_do_nothing(tmp_path, row):
    """Who is in no list is refused every command, with the role that it needs."""
    args = {name: "a" for name, kind in row.args if kind == "str"}
    (answer,) = serve(tmp_path, lambda ask, _: ask(command(row.name, **args)), roles=NotRoot(own_uid=1))
    assert answer["error"]["code"] == "not_allowed"
    assert row.role.name.lower() in answer["error"]["message"]


@pytest.mark.parametrize("row", OPERATOR_COMMANDS, ids=lambda row: row.name)
def test_a_viewer_may_look_only(tmp_path, row):
    """Of all commands a viewer may give exactly those whose row says so."""
    args = {name: "a" for name, kind in row.args if kind == "str"}
    (answer,) = serve(tmp_path, lambda ask, _: ask(command(row.name, **args)), roles=Viewers(own_uid=1))
    assert ("ok" in answer) == (row.role.name == "VIEWER")


def test_progress_comes_before_the_answer(tmp_path):
    """Progress lines arrive while the command runs, then one last line."""

    async def drain(args, progress):
        for left in (2, 1):
            await progress({"left": left})
        return {"done": True}

    lines = serve(tmp_path, lambda ask, _: ask(command("drain", all=True)), handlers={"drain": drain})
    assert lines == [{"progress": {"left": 2}}, {"progress": {"left": 1}}, {"ok": {"done": True}}]


def test_a_failed_command_is_one_typed_line(tmp_path):
    """The error has code, message in one line, retry hint, and details where there are some; the log has its code."""

    async def drain(args, progress):
        raise CommandFailed(DeadlineExceeded("two\nlines", retry_after_s=2.0), {"unfinished": {}})

    log = io.StringIO()
    observe.configure("json", stream=log)
    (answer,) = serve(tmp_path, lambda ask, _: ask(command("drain", all=True)), handlers={"drain": drain})
    observe.configure()
    assert json.loads(log.getvalue())["cause"].startswith("deadline_exceeded: ")
    assert answer["error"] == {
        "code": "deadline_exceeded", "message": "two lines", "retry_after_s": 2.0, "details": {"unfinished": {}},
    }  # fmt: skip


def test_a_defect_of_ours_is_an_internal_error_without_a_traceback(tmp_path):
    """An unexpected exception in a handler reaches the log; the operator gets a typed line."""

    async def status(args, progress):
        raise ZeroDivisionError("deep inside")

    log = io.StringIO()
    observe.configure("json", stream=log)
    (answer,) = serve(tmp_path, lambda ask, _: ask(command("status")), handlers={"status": status})
    observe.configure()
    assert answer["error"]["code"] == "internal"
    assert "deep inside" not in json.dumps(answer)
    assert "deep inside" in log.getvalue()


def test_a_line_without_end_is_refused(tmp_path):
    """More bytes than a line may have are a typed error, and no more than that is kept."""

    async def scenario(ask, path):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(b"x" * (3 << 20))
            return json.loads(await reader.readline())
        finally:
            writer.transport.abort()

    assert serve(tmp_path, scenario)["error"]["code"] == "malformed"


def test_who_says_nothing_is_sent_away(tmp_path):
    """A connection without a command ends after a while with a typed error."""

    async def scenario(ask, path):
        reader, writer = await asyncio.open_unix_connection(path)
        answer = json.loads(await reader.read())
        writer.close()
        return answer

    assert serve(tmp_path, scenario, ask_timeout_s=0.05)["error"]["code"] == "usage"


def test_who_does_not_read_holds_nobody_up(tmp_path):
    """An operator who does not take his answer is cut off, and others are answered meanwhile."""
    big = {"filler": "x" * (4 << 20)}

    async def status(args, progress):
        return big if args["tenant"] == "big" else {}

    async def scenario(ask, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as greedy:
            greedy.connect(path)
            greedy.sendall(json.dumps(command("status", tenant="big")).encode() + b"\n")
            others = [await ask(command("status")) for _ in range(5)]
            poller = select.poll()
            poller.register(greedy, 0)
            ((_, events),) = await asyncio.to_thread(poller.poll, 10_000)
            assert events & select.POLLHUP
        return others

    assert serve(tmp_path, scenario, handlers={"status": status}, write_timeout_s=0.05) == [[{"ok": {}}]] * 5


def test_too_many_connections_of_one_user_are_told_so(tmp_path, monkeypatch):
    """Beyond the bound a connection gets `overloaded` at once, with true words, and the first ones are served."""
    monkeypatch.setitem(control.PLACES, Role.OPERATOR, (3, 2))

    async def scenario(ask, path):
        waiting = [await asyncio.open_unix_connection(path) for _ in range(2)]
        with pytest.raises(operator.CommandFailed) as refused:
            await asyncio.to_thread(operator.call, str(tmp_path), "status", {})
        for reader, writer in waiting:
            writer.write(json.dumps(command("status")).encode() + b"\n")
            assert "ok" in json.loads(await reader.readline())
            writer.close()
        return refused.value.cause

    refused = serve(tmp_path, scenario)
    assert refused.code == Overloaded.code
    assert refused.message == "too many connections: 2 of the same owner are open, the most is 2"


class Changing(Roles):
    """The first peers are strangers, all others operators."""

    strangers = 40

    def role_of(self, peer):
        Changing.strangers -= 1
        return None if Changing.strangers >= 0 else Role.OPERATOR


def test_strangers_keep_no_operator_out(tmp_path):
    """With every place of strangers taken, and more of them coming, an operator is served at once."""

    async def scenario(ask, path):
        strangers = [await asyncio.open_unix_connection(path) for _ in range(40)]
        served = [await ask(command("status")) for _ in range(24)]
        answers = [json.loads(await reader.read()) for reader, _ in strangers]
        for _, writer in strangers:
            writer.close()
        return served, answers

    served, answers = serve(tmp_path, scenario, roles=Changing(own_uid=1), ask_timeout_s=0.5)
    assert all("ok" in lines[0] for lines in served)
    assert [answer["error"]["code"] for answer in answers] == ["usage"] * 4 + ["overloaded"] * 36


def test_a_lost_socket_is_bound_again(tmp_path):
    """Path or directory gone: noticed, and bound again; what is not ours stays, and is named until it is gone."""
    path = tmp_path / "run" / "operator.sock"
    log = io.StringIO()

    async def status(args, progress):
        return {}

    async def play():
        server = ControlServer(str(path), {"status": status}, lambda: EVERYBODY)
        await server.start()
        server.look_after()
        path.unlink()
        server.look_after()
        assert path.is_socket()
        shutil.rmtree(path.parent)
        server.look_after()
        assert path.is_socket()
        path.unlink()
        path.write_text("mine")
        for _ in range(2):
            with pytest.raises(FileExistsError, match="no socket"):
                server.look_after()
        assert path.read_text() == "mine"
        path.unlink()
        server.look_after()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(json.dumps(command("status")).encode() + b"\n")
        assert json.loads(await reader.readline()) == {"ok": {}}
        writer.close()
        await server.close()
        assert not path.exists()

    observe.configure("json", stream=log)
    asyncio.run(play())
    observe.configure()
    assert log.getvalue().count("operator.socket_lost") == 3


def test_closing_ends_what_still_waits(tmp_path):
    """At the end of the daemon a command that runs is cut off, and nothing is reported as a defect."""
    reported = []

    async def drain(args, progress):
        await progress({"left": 1})
        await asyncio.Event().wait()

    async def scenario(ask, path):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        sock.connect(path)
        await loop.sock_sendall(sock, json.dumps(command("drain", all=True)).encode() + b"\n")
        assert b"progress" in await loop.sock_recv(sock, 1000)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        serve(tmp_path, scenario, handlers={"drain": drain})
        assert sock.recv(1000) == b""
    assert reported == []


def test_a_socket_of_a_dead_daemon_is_replaced(tmp_path):
    """A socket file that nobody listens on any more does not keep the next daemon from starting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "operator.sock"))
    assert "ok" in serve(tmp_path, lambda ask, _: ask(command("status")))[0]
    assert not (tmp_path / "operator.sock").exists()
