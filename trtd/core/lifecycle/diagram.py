"""The lifecycle as a Mermaid state diagram, generated from the table so that it cannot lie."""

from __future__ import annotations

from trtd.core.lifecycle.table import EVENTS, TRANSITIONS, Moves
from trtd.core.lifecycle.vocabulary import State


def lifecycle_mermaid() -> str:
    """Mermaid text: one arrow per pair of states, labelled with the events that can lead from one to the other."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.STOPPED}"]
    for state in State:
        labels: dict[State, list[str]] = {}
        for event in EVENTS:
            cell = TRANSITIONS[state, event]
            if isinstance(cell, Moves):
                for target in cell.targets:
                    labels.setdefault(target, []).append(event.__name__)
        lines.extend(f"    {state} --> {target}: {', '.join(labels[target])}" for target in State if target in labels)
    return "\n".join(lines) + "\n"
