"""Names of users and groups, and the numbers that the kernel knows them by."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trtd.config.model import Config
from trtd.config.origins import Problem
from trtd.config.schema import KeyPath
from trtd.files import under_way

EVERYONE = "*"
"""In `allow_users`: every user of this host."""

_LARGEST_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where names are looked up; both functions raise KeyError for an unknown name."""

    uid_of: Callable[[str], int]
    gid_of: Callable[[str], int]

    def uids(self, path: KeyPath, names: Sequence[str]) -> tuple[tuple[int, ...], list[Problem]]:
        """The users' numbers, in order, and one problem for each that does not exist. Numbers stand for themselves."""
        return _resolve(path, names, self.uid_of, "user")

    def gids(self, path: KeyPath, names: Sequence[str]) -> tuple[tuple[int, ...], list[Problem]]:
        """Likewise for groups."""
        return _resolve(path, names, self.gid_of, "group")


SYSTEM = Accounts(lambda name: pwd.getpwnam(name).pw_uid, lambda name: grp.getgrnam(name).gr_gid)
"""The accounts of this host."""


def account_problems(config: Config, accounts: Accounts = SYSTEM) -> list[Problem]:
    """One problem for each user or group in the configuration that does not exist here."""
    return [problem for problems in _all_problems(config, accounts) for problem in problems]


def _all_problems(config: Config, accounts: Accounts) -> Iterator[list[Problem]]:
    operators = config.operators
    yield accounts.uids(("operators", "operator_users"), operators.operator_users)[1]
    yield accounts.gids(("operators", "operator_groups"), operators.operator_groups)[1]
    yield accounts.uids(("operators", "viewer_users"), operators.viewer_users)[1]
    yield accounts.gids(("operators", "viewer_groups"), operators.viewer_groups)[1]
    for name, tenant in config.tenants.items():
        yield accounts.uids(
            ("tenants", name, "allow_users"), [user for user in tenant.allow_users if user != EVERYONE]
        )[1]
        yield accounts.gids(("tenants", name, "allow_groups"), tenant.allow_groups)[1]


def _resolve(
    path: KeyPath, names: Sequence[str], lookup: Callable[[str], int], kind: str
) -> tuple[tuple[int, ...], list[Problem]]:
    ids = []
    problems = []
    for name in names:
        try:
            with under_way(f"the {kind} {name}"):
                ids.append(_number(name) if name.isdecimal() and name.isascii() else lookup(name))
        except (KeyError, ValueError):
            problems.append(Problem(path, f"there is no {kind} {name} on this host"))
    return tuple(ids), problems


def _number(text: str) -> int:
    if len(text) > len(str(_LARGEST_ID)) or int(text) > _LARGEST_ID:
        raise KeyError(text)
    return int(text)
