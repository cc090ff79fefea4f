"""Messages on the supervisor's channel and the settings of children. Types of fields are tested in test_records.py."""

from __future__ import annotations

import re
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import records
from tests.support.wire import pack
from trtd.core.faults import Fault, FaultKind
from trtd.errors import Malformed, TooLarge
from trtd.wire import control
from trtd.wire.control import FaultReport, Stop, Unfinished, WorkerBeat
from trtd.wire.settings import RouterSettings, WorkerSettings

MESSAGES = (*typing.get_args(control.ChildMessage), *typing.get_args(control.SupervisorMessage))


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_round_trips(kind: type[Any]) -> None:
    """Whatever stands in a message, the other side reads the same."""

    @given(records(kind))
    @settings(deadline=None, max_examples=20)
    def check(message: Any) -> None:
        assert control.decode_message(control.encode(message)) == message

    check()


@pytest.mark.parametrize("kind", [WorkerSettings, RouterSettings])
def test_settings_round_trip(kind: Any) -> None:
    """A child reads the settings that the supervisor wrote."""

    @given(records(kind))
    @settings(deadline=None, max_examples=20)
    def check(value: Any) -> None:
        assert control.decode_settings(control.encode_settings(value), kind) == value

    check()


@pytest.mark.parametrize("data", [b"", b"\x90", pack(5), pack({}), pack(["RouterSettings"]), pack(["WorkerSettings"])])
def test_settings_that_are_none_are_refused(data: bytes) -> None:
    """A child does not start with the settings of another kind, or with none."""
    with pytest.raises(Malformed):
        control.decode_settings(data, RouterSettings)


@pytest.mark.parametrize(
    ("plain", "line"),
    [
        ([], "expected an array [tag, field...]"),
        ({}, "expected an array [tag, field...], got a map"),
        (["Goodbye"], "'Goodbye' is no message"),
        (["Inner"], "'Inner' is no message"),
        ([5], "5 is no message"),
        ([["Stop"]], "an array is no message"),
        (["Stop", 1], "Stop: expected 0 fields, got 1"),
        (["WorkerBeat", 3, 10, True, 5, 6, None, False], "WorkerBeat.in_flight: expected an integer, got a boolean"),
    ],
)
def test_a_bad_message_is_refused(plain: Any, line: str) -> None:
    """The supervisor trusts no child: what is no message of the table is refused in one line."""
    with pytest.raises(Malformed, match=re.escape(line)) as raised:
        control.decode_message(pack(plain))
    assert raised.value.message.isprintable()


@pytest.mark.parametrize("packet", [b"", b"\xc1", b"\x91", control.encode(Stop()) + b"\x00", b"\x91" * 3000])
def test_bytes_that_are_no_message_are_refused(packet: bytes) -> None:
    """A truncated, padded or nested packet gives a typed error."""
    with pytest.raises(Malformed):
        control.decode_message(packet)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_packets_are_refused(packet: bytes) -> None:
    """Noise on the channel gives a typed error and nothing else."""
    with pytest.raises(Malformed):
        control.decode_message(packet)


def test_a_packet_beyond_the_limit_is_not_sent() -> None:
    """The channel's largest packet is a limit where it is written and where it is read."""
    with pytest.raises(TooLarge, match="Unfinished needs"):
        control.encode(Unfinished("a", ("0" * 100,) * 2000, 2000))
    with pytest.raises(Malformed, match=f"the most is {control.MAX_PACKET_BYTES}"):
        control.decode_message(bytes(control.MAX_PACKET_BYTES + 1))


def test_a_fault_that_names_a_strange_file_is_sent() -> None:
    """A file name that is no valid text does not keep a worker from saying what is wrong with it."""
    message = FaultReport(1, Fault(FaultKind.BAD_MODEL, "/models/caf\udce9.onnx"))
    decoded = control.decode_message(control.encode(message))
    assert isinstance(decoded, FaultReport)
    assert decoded.fault.message == "/models/caf\\udce9.onnx"


def test_a_message_is_its_tag_and_its_fields() -> None:
    """Packets are readable with any msgpack tool."""
    assert msgpack.unpackb(control.encode(WorkerBeat(3, 10, 1, 5, 6))) == ["WorkerBeat", 3, 10, 1, 5, 6, None, False]
    assert msgpack.unpackb(control.encode(Stop())) == ["Stop"]
