"""The verdict: is this encoder any good, in two sentences, and why."""

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]
MAIN = ("MAP@R", "mAP", "linear probe", "k-NN, chosen in train")
"""Figures that are told first, if they were measured."""


def verdict(log: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """What a person should know first: how training went, and what the features are worth.

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
    told = f"loss {first['loss']:.3g} at step {first['step']}, {last['loss']:.3g} at {last['step']}"
    spread = f"spread of embeddings {last['std']:.2f} of 1" if "std" in last else ""
    why = ", ".join(part for part in (told, spread) if part)
    if last.get("state", "healthy") != "healthy":
        return f"Training has ended {last['state']}: do not use this encoder ({why})."
    if ill:
        return (
            f"Training was {ill[-1]['state']} at {len(ill)} of {len(lines)} looks and healthy at "
            f"its end ({why})."
        )
    return f"Training was healthy at all {len(lines)} looks ({why})."


def _worth(records: Sequence[Record]) -> str:
    """By the figure that says most, against the best of what it was measured beside."""
    found = [(name, record) for record in records for name in record.get("leads", {})]
    if not found:
        return (
            "Nobody has measured it against baselines yet: tools/knn.py, tools/linear.py and "
            "tools/retrieval.py do."
        )
    order = {name: i for i, name in enumerate(MAIN)}
    name, record = min(found, key=lambda item: order.get(item[0], len(MAIN)))
    figure, lead = record["figures"][name], record["leads"][name]
    beside = {k: v[name]["value"] for k, v in record["beside"].items() if name in v}
    best = max(beside, key=lambda key: beside[key])
    told = (
        f"{name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] against "
        f"{beside[best]:.3f} of {best}"
    )
    if lead["low"] > 0:
        return f"Its features are worth something: {told}, a lead beyond chance."
    if lead["high"] < 0:
        return f"Its features are worth less than what they were measured beside: {told}."
    return f"It cannot be told from what it was measured beside: {told}."
