"""The router's end of the supervisor's channel: it never blocks the loop, and loses nothing that has to arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from trtd.child.channel import Channel, ChannelClosed
from trtd.errors import Malformed
from trtd.observe import Logger
from trtd.wire.control import ChildMessage, SupervisorMessage

MAX_WAITING = 65_536
"""Essential messages that wait for the supervisor; with more, it is taken for dead."""


class Link:
    """Sends and receives without waiting.

    While the supervisor does not read, essential messages are kept in order and tried again with each further message;
    life signs are frequent enough for that.
    """

    def __init__(self, channel: Channel, log: Logger) -> None:
        channel.set_blocking(False)
        self._channel = channel
        self._log = log
        self._waiting: deque[ChildMessage] = deque()
        self.fd = channel.fileno()

    def tell(self, message: ChildMessage) -> None:
        """Send a message that has to arrive.

        Raises:
            ChannelClosed: the supervisor is gone, or has not read for very long.
        """
        self._waiting.append(message)
        if len(self._waiting) > MAX_WAITING:
            raise ChannelClosed("the supervisor does not read")
        self.flush()

    def mention(self, message: ChildMessage) -> bool:
        """Send a message that a later one makes up for; False when it was dropped because the supervisor does not read.

        Raises:
            ChannelClosed: the supervisor is gone.
        """
        self.flush()
        return not self._waiting and self._channel.send(message)

    def flush(self) -> None:
        """Send what waits, as far as the supervisor reads.

        Raises:
            ChannelClosed: the supervisor is gone.
        """
        while self._waiting and self._channel.send(self._waiting[0]):
            self._waiting.popleft()

    def receive_all(self) -> Iterator[SupervisorMessage]:
        """Every message that has arrived. One that cannot be read is logged and left out.

        Raises:
            ChannelClosed: the supervisor is gone.
        """
        while True:
            try:
                message = self._channel.receive(wait=False)
            except Malformed as error:
                self._log.error("channel.message_refused", cause=error.message)
                continue
            if message is None:
                return
            yield message  # type: ignore[misc]  # the loop ignores what only children send
