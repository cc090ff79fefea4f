"""What the router tells of a client whose inputs end workers: to the supervisor, which charges nobody, and the log."""

from __future__ import annotations

from trtd.core.requests import BlameClient
from trtd.observe import Logger
from trtd.router.link import Link
from trtd.wire.control import ClientBlamed
from trtd.wire.headers import one_line


def tell(effect: BlameClient, link: Link, log: Logger) -> None:
    """Perform the effect.

    Raises:
        trtd.child.channel.ChannelClosed: the supervisor is gone.
    """
    owner, model = one_line(str(effect.owner)), one_line(effect.model)
    deaths = tuple((worker.replica, worker.generation) for worker in effect.deaths)
    link.tell(ClientBlamed(effect.tenant, owner, model, deaths, effect.barred_s))
    fields = {"tenant": effect.tenant, "owner": owner, "model": model, "deaths": len(deaths)}
    if effect.barred_s:
        log.warning("client.barred", **fields, barred_s=round(effect.barred_s, 3))
    else:
        log.warning("input.convicted", **fields)
