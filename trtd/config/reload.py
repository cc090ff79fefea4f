"""What a reload can change in a running daemon, and what has to wait for its restart."""

from __future__ import annotations

from dataclasses import dataclass

from trtd.config.checks import cross_problems
from trtd.config.model import Config, Reload
from trtd.config.origins import Origins, invalid_config, key_text
from trtd.config.schema import leaves, schema
from trtd.config.values import effective

FIXED_SECTIONS: tuple[str, ...] = tuple(
    key for key, node in schema().keys.items() if all(leaf.reload is Reload.DAEMON for _, leaf in leaves(node))
)
"""Top-level keys that keep their running values: children were told them at their start, sockets are where they say."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The outcome of a reload.

    Attributes:
        config: what is to be applied: the new configuration with the running values of what cannot change.
        needs_restart: keys whose new value waits for a restart of the daemon, dotted.
    """

    config: Config
    needs_restart: tuple[str, ...]


def reloaded(running: Config, wanted: Config, origins: Origins) -> Reloaded:
    """Keep what cannot change while the daemon runs, take the rest.

    Raises:
        trtd.errors.InvalidConfig: the two do not fit together, such as a first tcp endpoint whose
            `router.curve_secret_key_file` would need a restart.
    """
    before = dict(effective(running))
    after = dict(effective(wanted))
    changed = tuple(key_text(path) for path in after if path[0] in FIXED_SECTIONS and after[path] != before.get(path))
    config = wanted.model_copy(update={section: getattr(running, section) for section in FIXED_SECTIONS})
    problems = cross_problems(config) if changed else []
    if problems:
        raise invalid_config(problems, origins)
    return Reloaded(config, changed)
