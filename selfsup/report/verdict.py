"""The verdict: is this encoder any good, in two sentences, and why."""

from collections.abc import Sequence
from typing import Any

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


def verdict(log: Sequence[Record], records: Sequence[Record], *, unfinished: str = "") -> list[str]:
    """Summarise how training went, and what the features are worth.

    Args:
        log: the lines of log.jsonl.
        records: what evaluation tools wrote.
        unfinished: how far the run has come, if it has not finished: "step 7 of 800".
    """
    begun = [f"Training has not finished: {unfinished}."] * bool(unfinished)
    return [*begun, _training(log, records), _worth(records)]


def _training(log: Sequence[Record], records: Sequence[Record]) -> str:
    lines = [line for line in log if "loss" in line]
    if not lines:
        return "There is no log of its training."
    first, last = lines[0], lines[-1]
    ill = [line for line in lines if line.get("state", "healthy") != "healthy"]
    loss = f"loss {first['loss']:.3g} at step {first['step']}, {last['loss']:.3g} at {last['step']}"
    spread = f"spread of embeddings {last['std']:.2f} of 1" if "std" in last else ""
    why = ", ".join(words for words in (loss, spread) if words)
    if last.get("state", "healthy") != "healthy":
        kinds = {kind for kind, _ in _comparisons(records)}
        advice = "Measure it beside what it began with (--against) before you use it"
        if kinds == {"better"}:
            advice = "Yet its figures are better than every baseline's: they decide"
        meaning = ENDS.get(last["state"], "an older version's word")
        return f"Training has ended {last['state']}: {meaning} ({why}). {advice}."
    if ill:
        return (
            f"Training was {ill[-1]['state']} at {len(ill)} of {len(lines)} checks and healthy at "
            f"its end ({why})."
        )
    return f"Training was healthy at all {len(lines)} checks ({why}).{_gap(last)}"


def _gap(last: Record) -> str:
    """Say where healthy embeddings hardly tell classes apart."""
    positive, negative = last.get("positive"), last.get("negative")
    if positive is None or negative is None:
        return ""
    apart = last["gap"] > FEW_DEVIATIONS if "gap" in last else negative > LITTLE_GAP * positive
    if apart:
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
