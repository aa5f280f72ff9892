"""The verdict: is this encoder any good, in two sentences, and why."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfsup.methods.health import NO_SPREAD

Record = dict[str, Any]
MAIN = ("MAP@R", "mAP", "linear probe", "k-NN, chosen in train")
"""Figures that speak for a tool, the first of them that it measured; else its first figure."""
LITTLE_GAP = 1.25
"""Negatives less than this many times as far as positives: classes are hardly apart."""
FEW_DEVIATIONS = 0.5
"""The same of logs that have the gap in standard deviations."""
ENDS = {
    "collapsed": "its embeddings tell less apart than at its start",
    "collapsing": "its embeddings tell less apart than at its start",
    "memorising": "it has learnt the classes of training by heart",
    "starving": "nothing in its last batches was left to learn from",
}
"""What a run's last state means."""


def verdict(
    log: Sequence[Record], records: Sequence[Record], *, init: str = "", unfinished: str = ""
) -> list[str]:
    """Summarise how training went, and what the features are worth.

    Args:
        log: the lines of log.jsonl.
        records: what evaluation tools wrote.
        init: where the weights came from that the run began with, if they were not random.
        unfinished: how far the run has come, if it has not finished: "step 7 of 800".
    """
    begun = [f"Training has not finished: {unfinished}."] * bool(unfinished)
    return [*begun, _training(log, records, init), _worth(records)]


def _training(log: Sequence[Record], records: Sequence[Record], init: str) -> str:
    lines = [line for line in log if "loss" in line]
    if not lines:
        return "There is no log of its training."
    first, last = lines[0], lines[-1]
    states = [line.get("state", "healthy") for line in lines]
    ill = Counter(state for state in states if state != "healthy")
    loss = f"loss {first['loss']:.3g} at step {first['step']}, {last['loss']:.3g} at {last['step']}"
    std = last.get("std", 1.0)
    digits = 2 if std >= 0.1 else 3
    spread = f"spread of embeddings {std:.{digits}f} of 1" if "std" in last else ""
    why = ", ".join(words for words in (loss, spread) if words)
    if states[-1] != "healthy":
        meaning = ENDS.get(states[-1], "an older version's word")
        return f"Training has ended {states[-1]}: {meaning} ({why}). {_advice(records, init)}."
    if std < NO_SPREAD:
        return f"Training has ended with embeddings nearly equal ({why}). {_advice(records, init)}."
    if ill:
        counts = " and ".join(f"{state} at {count}" for state, count in ill.items())
        return f"Training was {counts} of {len(lines)} checks and healthy at its end ({why})."
    return f"Training was healthy at all {len(lines)} checks ({why}).{_gap(last)}"


def _advice(records: Sequence[Record], init: str) -> str:
    """What to do with a run that ended ill: figures beside those of its start decide."""
    compared = [record for record in records if record.get("margins")]
    beside = [any(_is_start(name, init) for name in each["baselines"]) for each in compared]
    if compared and all(beside) and all(_compared(each)[0] == "better" for each in compared):
        return "Yet its figures are better than every baseline's, its start's too: they decide"
    return "Measure it beside what it began with (--against) before you use it"


def _is_start(baseline: str, init: str) -> bool:
    """Whether a baseline is what the run began with: a folder's name, "network (file, match)"."""
    if not init:
        return baseline == "random"
    names = {init, Path(init).name}
    return baseline in names or any(f"({name}{end}" in baseline for name in names for end in ",)")


def _gap(last: Record) -> str:
    """Say where healthy embeddings hardly tell classes apart."""
    positive, negative = last.get("positive"), last.get("negative")
    if positive is None or negative is None:
        return ""
    if "gap" in last:
        if last["gap"] > FEW_DEVIATIONS:
            return ""
        return (
            f" But distances of images of one label and of two overlap: they are {positive:.2f} "
            f"and {negative:.2f} on average at the last check, {last['gap']:.2f} deviations apart."
        )
    if negative > LITTLE_GAP * positive:
        return ""
    return (
        f" But images of one label are nearly as far apart as images of two: {positive:.2f} and "
        f"{negative:.2f} at the last check."
    )


def _worth(records: Sequence[Record]) -> str:
    """Compare each tool's main figure with the best baseline's."""
    compared = _comparisons(records)
    if not compared:
        return (
            "It has not been compared with baselines yet: selfsup knn, selfsup linear and selfsup "
            "retrieval do that."
        )
    if len(compared) == 1:
        ((kind, why),) = compared
        better = "better than every baseline", ", a margin beyond chance"
        worse = "worse than the best baseline", ""
        if kind in ("better", "worse"):
            words, end = better if kind == "better" else worse
            return f"Its features are {words}: {why}{end}."
        return f"Its score is not significantly different from the best baseline: {why}."
    heads = {
        "better": "better than every baseline, beyond chance,",
        "worse": "worse than the best baseline",
        "same": "not significantly different from the best baseline",
    }
    parts = []
    for kind, head in heads.items():
        whys = [why for each, why in compared if each == kind]
        if whys:
            parts.append(f"{head} in {len(whys)} of {len(compared)} figures: {'; '.join(whys)}")
    return f"Its features are {'. They are '.join(parts)}."


def _comparisons(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [_compared(record) for record in records if record.get("margins")]


def _compared(record: Record) -> tuple[str, str]:
    """Whether a tool's main figure is better or worse than the best baseline's, and the numbers."""
    order = {name: i for i, name in enumerate(MAIN)}
    name = min(record["margins"], key=lambda each: order.get(each, len(MAIN)))
    figure, margin = record["figures"][name], record["margins"][name]
    baselines = {k: v[name]["value"] for k, v in record["baselines"].items() if name in v}
    best = max(baselines, key=lambda key: baselines[key])
    why = (
        f"{name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] against "
        f"{baselines[best]:.3f} of {best}"
    )
    if margin["low"] > 0:
        return "better", why
    return ("worse" if margin["high"] < 0 else "same"), why
