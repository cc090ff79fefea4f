"""A client that offers shared memory by hand: memfds and packets of every kind, and requests that name places."""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.router import PATIENCE_S, RouterClient
from trtd.core.ids import RequestId
from trtd.wire import codec
from trtd.wire.arenas import (
    MAX_PACKET_BYTES,
    ArenaAccepted,
    ArenaOffered,
    ArenaPacket,
    ArenaRef,
    ArenaRefused,
    ArenaWithdrawn,
    Welcome,
    decode_packet,
    encode_packet,
    encode_ref,
)
from trtd.wire.messages import Dtype, InferRequest, Place, TensorSpec

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make_memfd(size_bytes: int = PAGE_BYTES, seals: int = SEALS, flags: int = 0) -> int:
    """A memfd as an arena has to be, unless told otherwise; the caller closes it."""
    fd = os.memfd_create("arena", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC | flags)
    os.ftruncate(fd, size_bytes)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@contextmanager
def closing(*fds: int) -> Iterator[Sequence[int]]:
    """Descriptors that are closed again at the end."""
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


class Offerer:
    """A connection to the socket at which arenas are offered."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))

    def receive(self) -> ArenaPacket | None:
        """The next packet of the router, None when it has hung up."""
        try:
            data = self.socket.recv(MAX_PACKET_BYTES)
        except ConnectionResetError:
            return None
        return decode_packet(data) if data else None

    def welcome(self) -> Welcome:
        """The first packet."""
        packet = self.receive()
        assert isinstance(packet, Welcome)
        return packet

    def send(self, data: bytes, *fds: int) -> None:
        """Any bytes with any descriptors."""
        socket.send_fds(self.socket, [data], fds)

    def offer(self, *fds: int, size_bytes: int = PAGE_BYTES, number: int = 1) -> ArenaAccepted | ArenaRefused:
        """Offer what the descriptors stand for; the router's word on it."""
        self.send(encode_packet(ArenaOffered(number, size_bytes)), *fds)
        answer = self.receive()
        assert isinstance(answer, ArenaAccepted | ArenaRefused), answer
        assert answer.number == number
        return answer

    def open(self, size_bytes: int = PAGE_BYTES) -> tuple[int, int]:
        """Offer an arena that is taken; its key, and a descriptor that the caller closes."""
        fd = make_memfd(size_bytes)
        answer = self.offer(fd, size_bytes=size_bytes)
        assert isinstance(answer, ArenaAccepted), answer
        return answer.key, fd

    def withdraw(self, key: int) -> None:
        """Say that an arena will be named no more."""
        self.send(encode_packet(ArenaWithdrawn(key)))

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def place_frames(
    *refs: ArenaRef, area: ArenaRef | None = None, sizes: Sequence[int] | None = None, **fields: Any
) -> list[bytes]:
    """A request whose inputs are bytes at these places; their sizes in the header are those of the places."""
    sizes = [ref.size_bytes for ref in refs] if sizes is None else sizes
    inputs = tuple(TensorSpec(f"x{at}", Dtype.UINT8, (size,), Place.ARENA) for at, size in enumerate(sizes))
    request_id = RequestId(uuid.uuid4().bytes)
    request = InferRequest(request_id, "m", None, inputs, has_area=area is not None, **fields)
    return [
        codec.encode_client_message(request),
        *(encode_ref(ref) for ref in (*refs, *([area] if area is not None else []))),
    ]


def ask_places(client: RouterClient, *refs: ArenaRef, **fields: Any) -> RequestId:
    """Send such a request; its id."""
    frames = place_frames(*refs, **fields)
    client.send(*frames)
    return codec.read_request_id(frames[0])
