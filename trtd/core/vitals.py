"""When the daemon as a whole has failed, so that its host had better start it anew.

A daemon that lives on without being able to serve is the worst kind: its host sees a process and does nothing. What one
tenant suffers is no reason; what ends here is a router that cannot be kept up and, where that is wanted, a daemon of
which no required tenant can serve.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Signs:
    """What is seen at one instant.

    Attributes:
        router_ready_s: how long the router has been ready without a break; None while it is not.
        is_any_ready: whether any required tenant takes requests, or none is meant to.
        are_all_hopeless: whether no worker can be expected for any required tenant.
        router_failure: why no router can be started until somebody mends something; empty while one may.
    """

    router_ready_s: float | None
    is_any_ready: bool
    are_all_hopeless: bool
    router_failure: str = ""


@dataclass(slots=True)
class Vitals:
    """The daemon's signs over time.

    Attributes:
        give_up_after_s: patience; 0 for ever.
        sound_after_s: a router ready for so long counts as kept up; one that dies sooner, again and again, does not.
        watches_tenants: whether tenants count.
        began_at: monotonic instant of the start.
    """

    give_up_after_s: float
    sound_after_s: float
    watches_tenants: bool
    began_at: float
    _router_sound_at: float = field(init=False)
    _hopeless_since: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._router_sound_at = self.began_at

    def look(self, signs: Signs, now: float) -> str | None:
        """Why the daemon has to end, in one line; None while it need not."""
        if signs.router_ready_s is not None and signs.router_ready_s >= min(self.sound_after_s, self.give_up_after_s):
            self._router_sound_at = now
        # A trial out of quarantine is no recovery before it succeeds, and no new failure either.
        if signs.is_any_ready:
            self._hopeless_since = None
        elif signs.are_all_hopeless and self._hopeless_since is None:
            self._hopeless_since = now
        if not self.give_up_after_s:
            return None
        if signs.router_failure:
            return f"no router can be started: {signs.router_failure}"
        if now - self._router_sound_at >= self.give_up_after_s:
            return f"the router could not be kept up for {self.give_up_after_s:g} s"
        if (
            self.watches_tenants
            and self._hopeless_since is not None
            and now - self._hopeless_since >= self.give_up_after_s
        ):
            return f"no required tenant could serve for {self.give_up_after_s:g} s"
        return None
