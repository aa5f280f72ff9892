"""The verdict: is this encoder any good, in two sentences, and why."""

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]
MAIN = ("MAP@R", "mAP", "linear probe", "k-NN, chosen in train")
"""Figures that decide the verdict, the first of them that was measured."""


def verdict(log: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Summarise how training went, and what the features are worth.

    Args:
        log: the lines of log.jsonl.
        records: what evaluation tools wrote.
    """
    return [_training(log), _worth(records)]


def _training(log: Sequence[Record]) -> str:
    lines = [line for line in log if "loss" in line]
    if not lines:
        return "There is no log of its training."
    first, last = lines[0], lines[-1]
    ill = [line for line in lines if line.get("state", "healthy") != "healthy"]
    loss = f"loss {first['loss']:.3g} at step {first['step']}, {last['loss']:.3g} at {last['step']}"
    spread = f"spread of embeddings {last['std']:.2f} of 1" if "std" in last else ""
    why = ", ".join(words for words in (loss, spread) if words)
    if last.get("state", "healthy") != "healthy":
        return f"Training has ended {last['state']}: do not use this encoder ({why})."
    if ill:
        return (
            f"Training was {ill[-1]['state']} at {len(ill)} of {len(lines)} checks and healthy at "
            f"its end ({why})."
        )
    return f"Training was healthy at all {len(lines)} checks ({why})."


def _worth(records: Sequence[Record]) -> str:
    """Compare the figure that matters most with the best baseline's."""
    measured = [(name, record) for record in records for name in record.get("margins", {})]
    if not measured:
        return (
            "It has not been compared with baselines yet: selfsup knn, selfsup linear and selfsup "
            "retrieval do that."
        )
    order = {name: i for i, name in enumerate(MAIN)}
    name, record = min(measured, key=lambda item: order.get(item[0], len(MAIN)))
    figure, margin = record["figures"][name], record["margins"][name]
    baselines = {k: v[name]["value"] for k, v in record["baselines"].items() if name in v}
    best = max(baselines, key=lambda key: baselines[key])
    why = (
        f"{name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] against "
        f"{baselines[best]:.3f} of {best}"
    )
    if margin["low"] > 0:
        return f"Its features are better than every baseline: {why}, a margin beyond chance."
    if margin["high"] < 0:
        return f"Its features are worse than the best baseline: {why}."
    return f"Its score is not significantly different from the best baseline: {why}."
