"""The diagram is the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.readme import README
from trtd.core.lifecycle import EVENTS, TRANSITIONS, Moves, State, lifecycle_mermaid

ROOT = Path(__file__).parents[3]


def arrows(diagram):
    """(state, event name, target) for each label of the diagram."""
    found = set()
    for line in diagram.splitlines()[2:]:
        ends, events = line.strip().split(": ")
        before, after = ends.split(" --> ")
        found |= {(before, event, after) for event in events.split(", ")}
    return found


def test_the_diagram_shows_every_move_of_the_table_and_no_other():
    """Reading the Mermaid text back gives exactly the targets of the table."""
    table = {
        (str(state), event.__name__, str(target))
        for (state, event), cell in TRANSITIONS.items()
        if isinstance(cell, Moves)
        for target in cell.targets
    }
    assert arrows(lifecycle_mermaid()) == table
    assert {event.__name__ for event in EVENTS} > {event for _, event, _ in table}
    assert lifecycle_mermaid().startswith(f"stateDiagram-v2\n    [*] --> {State.STOPPED}\n")


def test_the_script_prints_the_diagram():
    """scripts/diagram prints the Mermaid text and nothing else."""
    outcome = subprocess.run([sys.executable, ROOT / "scripts" / "diagram"], capture_output=True, text=True, timeout=60)
    assert (outcome.returncode, outcome.stdout) == (0, lifecycle_mermaid())


def test_the_readme_shows_this_diagram():
    """What the README shows is what `scripts/diagram` prints."""
    assert f"```mermaid\n{lifecycle_mermaid()}```" in README.read_text(encoding="utf-8")
