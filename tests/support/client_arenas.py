"""The router's side of arenas to test clients with: takes or refuses what is offered, and sees into the memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trtd.errors import ErrorCode
from trtd.wire.arenas import (
    MAX_PACKET_BYTES,
    ArenaAccepted,
    ArenaOffered,
    ArenaRef,
    ArenaRefused,
    ArenaWithdrawn,
    Welcome,
    decode_packet,
    encode_packet,
)

WAIT_S = 10.0


@dataclass
class Taken:
    """An arena that a client offered."""

    offered: ArenaOffered
    key: int
    memory: mmap.mmap = field(repr=False)
    is_withdrawn: bool = False


class StandInArenas:
    """Listens at a path until it is closed, in a thread of its own.

    Attributes:
        taken: every arena that was accepted, by its key; keys count from 1000.
        connections: how many clients have come.
        refuses: a reason to refuse offers; None accepts.
        is_silent: whether offers are left unanswered.
    """

    def __init__(self, path: str, max_arena_bytes: int, *, has_bundles: bool) -> None:
        self.taken: dict[int, Taken] = {}
        self.connections = 0
        self.refuses: ErrorCode | None = None
        self.is_silent = False
        self._welcome = Welcome(max_arena_bytes, has_bundles)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen()
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def read(self, ref: ArenaRef) -> bytes:
        """The bytes in that place."""
        return self.taken[ref.key].memory[ref.offset : ref.offset + ref.size_bytes]

    def write(self, ref: ArenaRef, data: bytes) -> None:
        """Put bytes there, as a worker would."""
        self.taken[ref.key].memory[ref.offset : ref.offset + ref.size_bytes] = data

    def wait(self, condition: Callable[[StandInArenas], bool]) -> None:
        """Wait until the condition is true of this."""
        deadline = time.monotonic() + WAIT_S
        while not condition(self):
            assert time.monotonic() < deadline, self.taken
            time.sleep(0.001)

    def hang_up(self) -> None:
        """End the connections of all clients, and go on listening."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, as a router that dies."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for taken in self.taken.values():
            taken.memory.close()
        Path(self._path).unlink()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        # A client may go at any time.
        with client, contextlib.suppress(ConnectionError):
            client.send(encode_packet(self._welcome))
            while True:
                data, fds, _, _ = socket.recv_fds(client, MAX_PACKET_BYTES, 1)
                if not data:
                    break
                packet = decode_packet(data)
                if isinstance(packet, ArenaOffered):
                    self._take(client, packet, fds[0])
                elif isinstance(packet, ArenaWithdrawn):
                    self.taken[packet.key].is_withdrawn = True
        self._clients.remove(client)

    def _take(self, client: socket.socket, offered: ArenaOffered, fd: int) -> None:
        memory = mmap.mmap(fd, offered.size_bytes)
        os.close(fd)
        if self.is_silent:
            return
        if self.refuses is not None:
            client.send(encode_packet(ArenaRefused(offered.number, self.refuses, "no")))
            return
        key = 1000 + len(self.taken)
        self.taken[key] = Taken(offered, key, memory)
        client.send(encode_packet(ArenaAccepted(offered.number, key)))
