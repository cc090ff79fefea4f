"""Every file that is made here, by its place in the repository."""

from __future__ import annotations

from trtd.manual.commands import commands_page
from trtd.manual.completions import bash, fish, zsh
from trtd.manual.daemon import daemon_page
from trtd.manual.settings import settings_page


def made_files() -> dict[str, str]:
    """Place -> text."""
    return {
        "etc/man/trtd.1": commands_page(),
        "etc/man/trtd.toml.5": settings_page(),
        "etc/man/trtd.8": daemon_page(),
        "etc/completions/trtd.bash": bash(),
        "etc/completions/_trtd": zsh(),
        "etc/completions/trtd.fish": fish(),
    }
