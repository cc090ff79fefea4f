"""When the daemon as a whole has failed."""

from __future__ import annotations

import pytest

from trtd.core.vitals import Signs, Vitals

SOUND = Signs(router_ready_s=100.0, is_any_ready=True, are_all_hopeless=False)
NO_ROUTER = Signs(router_ready_s=None, is_any_ready=True, are_all_hopeless=False)
HOPELESS = Signs(router_ready_s=100.0, is_any_ready=False, are_all_hopeless=True)
LOADING = Signs(router_ready_s=100.0, is_any_ready=False, are_all_hopeless=False)


def verdicts(*story: tuple[float, Signs], after_s: float = 60.0, watches_tenants: bool = True) -> list[str | None]:
    """What is said at each instant of a story that begins at 0."""
    vitals = Vitals(after_s, sound_after_s=5.0, watches_tenants=watches_tenants, began_at=0.0)
    return [vitals.look(signs, now) for now, signs in story]


def test_a_router_that_never_comes():
    """The daemon gives up when the router was not ready for the whole time from the start."""
    assert verdicts((0, NO_ROUTER), (59.9, NO_ROUTER), (60, NO_ROUTER)) == [
        None, None, "the router could not be kept up for 60 s",
    ]  # fmt: skip


def test_a_router_that_comes_back_in_time():
    """A router that was sound meanwhile starts the time anew."""
    assert verdicts((50, NO_ROUTER), (55, SOUND), (114, NO_ROUTER), (116, NO_ROUTER))[-2:] == [
        None, "the router could not be kept up for 60 s",
    ]  # fmt: skip


def test_a_router_that_dies_again_and_again():
    """Lives too short to count as sound are no recovery, however often there is one."""
    short = Signs(router_ready_s=4.9, is_any_ready=True, are_all_hopeless=False)
    assert verdicts(*[(float(now), short) for now in range(0, 61, 10)])[-1] is not None


def test_a_short_patience_is_not_longer_than_sound_lives():
    """Where the patience is shorter than a sound life, a router ready for the patience counts."""
    ready = Signs(router_ready_s=2.0, is_any_ready=True, are_all_hopeless=False)
    assert verdicts((2, ready), (4, ready), after_s=2.0) == [None, None]


@pytest.mark.parametrize(("watches_tenants", "gives_up"), [(True, True), (False, False)])
def test_tenants_count_where_that_is_wanted(watches_tenants, gives_up):
    """When nothing required can serve for so long, the daemon gives up only if it was told to."""
    said = verdicts((0, HOPELESS), (60, HOPELESS), watches_tenants=watches_tenants)[-1]
    assert said == ("no required tenant could serve for 60 s" if gives_up else None)


def test_a_trial_is_no_recovery_before_it_succeeds():
    """A worker that is tried again out of quarantine does not start the time anew; one that becomes ready does."""
    assert verdicts((0, HOPELESS), (30, LOADING), (60, HOPELESS))[-1] is not None
    assert verdicts((0, HOPELESS), (30, SOUND), (60, HOPELESS), (89, HOPELESS)) == [None] * 4


def test_slow_loading_is_no_failure():
    """Tenants that still load have all the time of their own limits."""
    assert verdicts((0, LOADING), (600, LOADING)) == [None, None]


def test_zero_is_for_ever():
    """With a patience of 0 the daemon never gives up."""
    assert verdicts((0, NO_ROUTER), (1e6, NO_ROUTER), after_s=0.0) == [None, None]


def test_a_router_that_can_never_start_is_not_waited_for():
    """The daemon gives up at once with the reason, unless it is never to give up."""
    broken = Signs(None, is_any_ready=True, are_all_hopeless=False, router_failure="cannot start: no zmq")
    cause = "no router can be started: cannot start: no zmq"
    assert verdicts((0.5, broken)) == [cause]
    assert verdicts((0.5, broken), after_s=0.0) == [None]
