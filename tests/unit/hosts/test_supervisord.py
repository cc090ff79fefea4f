"""What we ship for supervisord: its configuration, the listener's lines, and values as XML-RPC can carry them."""

from __future__ import annotations

import io
import json
import tomllib
from importlib import resources
from pathlib import Path
from xmlrpc.client import dumps

import pytest

from tests.support.supervisord import shipped
from trtd import observe
from trtd.config.model import Config
from trtd.hosts import supervisord_events
from trtd.hosts.supervisord import xmlrpc_value
from trtd.supervisor.shutdown import CUT_GRACE_S

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_supervisord_waits_longer_than_a_drain_takes():
    """SIGTERM drains, and SIGKILL comes after the drain, the cut and the workers' own time to stop."""
    section = shipped()["program:trtd"]
    config = Config.model_validate({"tenants": {}})
    longest_s = config.daemon.drain_timeout_s + CUT_GRACE_S + config.router.health.stop_s + config.router.health.reap_s
    assert section["stopsignal"] == "TERM"
    assert int(section["stopwaitsecs"]) > longest_s
    assert [section[key] for key in ("autorestart", "stopasgroup", "killasgroup")] == ["true"] * 3


def test_the_configuration_names_what_exists():
    """Commands are scripts that the package installs, the factory can be imported, and no reload is by SIGHUP."""
    scripts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
    parser = shipped()
    assert parser["program:trtd"]["command"].split()[0] in scripts
    assert parser["eventlistener:trtd-events"]["command"] in scripts
    module, _, name = parser["rpcinterface:trtd"]["supervisor.rpcinterface_factory"].partition(":")
    assert resources.files(module.rpartition(".")[0]).joinpath(f"{module.rpartition('.')[2]}.py").is_file()
    assert name == "make_interface"


def frame(name: str, payload: str) -> str:
    return f"ver:3.0 server:s serial:1 pool:p poolserial:1 eventname:{name} len:{len(payload)}\n{payload}"


def listen(*frames: str) -> tuple[list[dict[str, object]], str]:
    """The lines that the listener logs, and what it tells supervisord."""
    logged, told = io.StringIO(), io.StringIO()
    observe.configure("json", stream=logged)
    supervisord_events.listen(io.StringIO("".join(frames)), told)
    return [json.loads(line) for line in logged.getvalue().splitlines()], told.getvalue()


@pytest.mark.parametrize(
    ("state", "payload", "expected"),
    [
        ("STARTING", "from_state:STOPPED tries:0", {"level": "info", "was": "stopped", "tries": 0}),
        ("RUNNING", "from_state:STARTING pid:7", {"level": "info", "pid": 7}),
        ("EXITED", "from_state:RUNNING expected:0 pid:7", {"level": "warning", "is_expected": False}),
        ("EXITED", "from_state:RUNNING expected:1 pid:7", {"level": "info", "is_expected": True}),
        ("BACKOFF", "from_state:STARTING tries:3", {"level": "warning", "tries": 3}),
        ("FATAL", "from_state:BACKOFF", {"level": "error", "was": "backoff"}),
    ],
)
def test_an_event_is_one_line(state, payload, expected):
    """Each change of state is one line with process, group, states and numbers as fields, at a level that fits."""
    (line,), _ = listen(frame(f"PROCESS_STATE_{state}", f"processname:p groupname:g {payload}"))
    fixed = {"event": "supervisord.process_state_changed", "process": "p", "group": "g", "state": state.lower()}
    assert {**fixed, **expected}.items() <= line.items()


def test_the_listener_keeps_the_protocol():
    """READY before each event, one OK after it, nothing else; an unknown kind is logged; the end of input ends it."""
    lines, told = listen(frame("TICK_5", "when:1"), frame("PROCESS_LOG_STDERR", "processname:p\nany text\n"))
    assert told == "READY\nRESULT 2\nOKREADY\nRESULT 2\nOKREADY\n"
    assert [line["name"] for line in lines] == ["TICK_5", "PROCESS_LOG_STDERR"]


def test_values_fit_xml_rpc():
    """Null is left out and a size above 31 bits becomes a double, so that a status record always gets through."""
    value = {"bytes": 2**40, "none": None, "list": [None, {"x": None, "y": True}], "small": -5}
    fitting = xmlrpc_value(value)
    assert fitting == {"bytes": 2.0**40, "list": [{"y": True}], "small": -5}
    assert fitting["list"][0]["y"] is True
    dumps((fitting,))
