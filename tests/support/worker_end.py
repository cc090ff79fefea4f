"""A worker's slots in threads of the test, and a router's end that they are connected to."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.support.batches import encode_worker_message
from tests.support.router_end import RouterEnd
from tests.support.worker import make_worker_settings
from trtd.wire.messages import Attach
from trtd.wire.settings import ModelSettings, WorkerSettings
from trtd.worker.arenas import Arenas
from trtd.worker.link import Link
from trtd.worker.load import load
from trtd.worker.loop import Loop


class WorkerEnd:
    """Slots in threads of this process, with a thread that attaches, as a worker's main thread does."""

    def __init__(self, address: str, settings: WorkerSettings) -> None:
        loaded = load(settings)
        catalogue = loaded.catalogue
        descriptions = tuple(one.description for one in catalogue.models)
        attach = encode_worker_message(Attach(settings.tenant, settings.replica, settings.generation, descriptions))
        self.link = Link(address, attach)
        self._arenas = Arenas(loaded.runtime)
        self.loop = Loop(
            self.link, catalogue, settings.generation, self._arenas, settings.busy_poll_s, settings.max_answer_bytes
        )
        self._is_over = False
        serve = partial(self.loop.serve, loaded.open_slots)
        self._threads = [threading.Thread(target=serve) for _ in range(settings.slots)]
        self._keeper = threading.Thread(target=self._keep_attached)
        for thread in (*self._threads, self._keeper):
            thread.start()

    def _keep_attached(self) -> None:
        while not self._is_over:
            retry_s = self.loop.connect()
            select.select([] if retry_s else [self.link.loss_fd], (), (), retry_s or 0.02)

    def stop(self) -> None:
        """Finish what was received, and let the last answers leave."""
        self.loop.stop()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        self._is_over = True
        self._keeper.join(20)
        self.link.close()
        # What the end of a process does for a worker.
        self._arenas.clear()


@contextmanager
def router_and_worker(
    address: str, *model_settings: ModelSettings, **fields: Any
) -> Iterator[tuple[RouterEnd, WorkerEnd]]:
    """A router's end and a worker's end with these models; both are gone afterwards."""
    settings = make_worker_settings(*model_settings, router_path=address, **fields)
    with RouterEnd(address) as router:
        worker = WorkerEnd(address, settings)
        try:
            router.attached()
            yield router, worker
        finally:
            worker.stop()
