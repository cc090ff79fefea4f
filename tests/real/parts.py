"""The parts of `scripts/real-models`, and the figures that each prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.real import careful, forest, nodes, packages, serving
from tests.real.cases import Case, Comparison
from tests.real.loading import Verdict
from tests.real.plain import Plain
from trtd.errors import TrtdError

DELAY_S = 0.05
"""How long a batch waits, where requests are to be joined."""
SHOWN = 20

Say = Callable[[str], None]


@dataclass
class Tally:
    """What a part found.

    Attributes:
        bad: what must not be, a line for each.
    """

    bad: list[str] = field(default_factory=list)


def run_packages(directory: Path, match: str, say: Say) -> Tally:
    """Every ONNX file of the packages, several different requests at once."""
    cases = [packages.make_case(path, directory) for path in packages.fetch(directory)]
    return _all_at_once([case for case in cases if match in case.name], say)


def run_forest(directory: Path, match: str, say: Say) -> Tally:
    """What scikit-learn exports by default: its outputs that are tensors."""
    cases = []
    for path in forest.make(directory):
        rows = np.load(path.with_name("rows.npy"))
        starts = np.random.default_rng(3).integers(0, len(rows) - forest.ROWS_OF_A_REQUEST, forest.REQUESTS)
        questions = [{"X": rows[start : start + forest.ROWS_OF_A_REQUEST]} for start in starts]
        cases.append(Case(f"scikit-learn/{path.name}", str(path), questions))
    return _all_at_once([case for case in cases if match in case.name], say)


def run_nodes(directory: Path, match: str, say: Say) -> Tally:
    """The models of one node: each once with its own inputs; those that would be joined, joined."""
    cases = [case for case in nodes.make(directory) if match in case.name]
    say(f"{len(cases)} node models")
    verdicts = dict(zip([case.name for case in cases], _judge(cases), strict=True))
    tally = Tally()
    # What ends a worker that loads it alone may be served by a daemon, which tries again without what it died of.
    refused = [case for case in cases if verdicts[case.name].is_refused]
    by_warm_up = [case for case in refused if "warm-up" in verdicts[case.name].reason]
    reasons = Counter(_reason(verdicts[case.name].reason) for case in refused)
    tally.bad += [f"{case.name}: refused by warm-up: {verdicts[case.name].reason}" for case in by_warm_up]
    accepted = [case for case in cases if case not in refused]
    plain = _plain(accepted)
    # What the package itself gives no inputs for, and what ONNX Runtime does not run either, has nothing to be served.
    able = [case for case in accepted if isinstance(plain[case.name], Plain)]
    unable = [case for case in accepted if case not in able]
    chance = [case for case in able if _is_chance(plain[case.name], case)]
    served = serving.serve(able)
    comparison, errors, shipped = Comparison(), [], Comparison()
    for case in able:
        outcome = served[case.name].outcomes[0]
        if isinstance(outcome, TrtdError):
            errors.append(f"{case.name}: {outcome}")
            continue
        if case not in chance:
            wanted = plain[case.name].answers[0]  # type: ignore[union-attr]  # those that are able
            comparison.add(case, outcome, wanted)
            if case.expected is not None:
                shipped.add(case, outcome, {name: case.expected[name] for name in wanted if name in case.expected})
    tally.bad += comparison.wrong + errors
    say(f"  refused at load: {len(refused)}, of these by warm-up: {len(by_warm_up)}")
    for reason, count in reasons.most_common():
        say(f"    {count:5} {reason}")
    say(f"  accepted, but ONNX Runtime alone does not run them with these inputs: {len(unable)}")
    for reason, count in Counter(_reason(plain[case.name].reason) for case in unable).most_common(SHOWN):  # type: ignore[union-attr]  # the others
        say(f"    {count:5} {reason}")
    say(f"  served: {len(able)}, refused while serving: {len(errors)}, left to chance: {len(chance)}")
    say(f"  against ONNX Runtime: {_words(comparison)}")
    say(f"  against the outputs that come with them: {_words(shipped)}")
    for line in shipped.wrong:
        say(f"    as ONNX Runtime alone: {line}")
    say("  the same with an open first dimension, where all tensors agree in it:")
    tally.bad += _joined([case for case in able if case not in chance], directory, say)
    return tally


def _joined(cases: Sequence[Case], directory: Path, say: Say) -> list[str]:
    """Joined against separate: a model is joined where trtd finds that it may be, and then each answer has to agree."""
    loosened = nodes.loosened(cases, directory)
    verdicts = dict(zip([case.name for case in loosened], _judge(loosened), strict=True))
    plain = _plain(loosened)
    able = [case for case in loosened if isinstance(plain[case.name], Plain) and not verdicts[case.name].is_refused]
    batched = [case for case in able if verdicts[case.name].is_batched]
    say(f"    {len(loosened)} models, {len(able)} served, {len(batched)} of these described as joined")
    if not batched:
        return []
    return _all_at_once(batched, say, is_each_told=False).bad


PARTS: dict[str, Callable[[Path, str, Say], Tally]] = {
    "packages": run_packages,
    "scikit-learn": run_forest,
    "nodes": run_nodes,
}


def _all_at_once(cases: Sequence[Case], say: Say, *, is_each_told: bool = True) -> Tally:
    """Ask all questions of each model at once, joined where trtd joins, and compare with each run by itself."""
    tally, total, joined = Tally(), Comparison(), 0
    verdicts = dict(zip([case.name for case in cases], _judge(cases), strict=True))
    plain = _plain(cases)
    good = []
    for case in cases:
        verdict, alone = verdicts[case.name], plain[case.name]
        if verdict.is_refused:
            tally.bad.append(f"{case.name}: refused: {verdict.reason}")
        elif isinstance(alone, careful.Failed):
            say(f"  {case.name}: ONNX Runtime alone fails: {alone.reason}")
        else:
            good.append(case)
    for name, served in serving.serve(good, max_delay_s=DELAY_S).items():
        case = next(one for one in good if one.name == name)
        alone = plain[name]
        assert isinstance(alone, Plain)
        # Runs of one model that takes one request at a time may happen to take equally long.
        together = served.joined if verdicts[name].is_batched else 0
        comparison = Comparison()
        for outcome, wanted in zip(served.outcomes, alone.answers, strict=True):
            if isinstance(outcome, TrtdError):
                comparison.wrong.append(f"{name}: {outcome}")
            else:
                comparison.add(case, outcome, wanted)
        if is_each_told:
            left_out = f", {alone.left_out} outputs do not travel" if alone.left_out else ""
            asked = f"{len(case.questions)} requests, {together} joined ({verdicts[name].batching}){left_out}"
            say(f"  {name}: {asked}: {_words(comparison)}")
        total.merge(comparison)
        joined += together
    say(f"  {len(good)} models, {joined} requests joined: {_words(total)}")
    tally.bad += total.wrong
    return tally


def _judge(cases: Sequence[Case]) -> list[Verdict]:
    results = careful.each("tests.real.loading", [case.path for case in cases])
    return [Verdict(None, one.reason, is_crash=True) if isinstance(one, careful.Failed) else one for one in results]


def _plain(cases: Sequence[Case]) -> dict[str, Plain | careful.Failed]:
    return dict(zip([case.name for case in cases], careful.each("tests.real.plain", cases), strict=True))


def _is_chance(plain: Plain | careful.Failed, case: Case) -> bool:
    """Whether ONNX Runtime gives another answer each time."""
    assert isinstance(plain, Plain)
    again = Comparison()
    again.add(case, plain.again, plain.answers[0])
    return bool(again.wrong)


def _words(comparison: Comparison) -> str:
    close = f", {comparison.close} within tolerance (at most {comparison.largest:.2g})" if comparison.close else ""
    return f"{comparison.equal} answers bit-equal{close}, {len(comparison.wrong)} wrong"


def _reason(text: str) -> str:
    """A reason without what differs from model to model."""
    text = re.sub(r"/\S+\.onnx", "FILE", text)
    text = re.sub(r"model '\w+'( \d+)?: ", "", text)
    text = re.sub(r"'[^']*'", "...", text)
    return text if len(text) <= 130 else f"{text[:64]} ... {text[-60:]}"
