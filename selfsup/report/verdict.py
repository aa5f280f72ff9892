"""The verdict: is this encoder any good, in sentences beside a traffic light, and why."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.evaluate.results import judgement
from selfsup.methods.health import NO_SPREAD
from selfsup.report.page import Light, Verdict
from selfsup.report.seen import ImageSet, is_seen, measured_on

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


class Comparison(NamedTuple):
    """A figure beside the best baseline's."""

    name: str
    kind: str
    """better, worse or same."""
    why: str
    """With numbers."""
    main: bool
    """Whether it speaks for its tool."""


def verdict(
    log: Sequence[Record],
    records: Sequence[Record],
    *,
    init: str = "",
    unfinished: str = "",
    more: Sequence[str] = (),
    seen: Sequence[ImageSet] = (),
) -> Verdict:
    """Summarise what the features are worth, and how training went.

    Args:
        log: the lines of log.jsonl.
        records: what evaluation tools wrote.
        init: where the weights came from that the run began with, if they were not random.
        unfinished: how far the run has come, if it has not finished: "step 7 of 800".
        more: sentences at the end.
        seen: images of training.
    """
    begun = [f"Training has not finished: {unfinished}."] * bool(unfinished)
    warnings = [f"Warning: {words}" for record in records for words in record.get("warnings", [])]
    warnings += _measured_on_training(records, seen)
    sentences = [*warnings, *_worth(records), *begun, _training(log, records, init), *more]
    return Verdict(*_light(log, records, unfinished, warned=bool(warnings)), sentences)


def _light(
    log: Sequence[Record], records: Sequence[Record], unfinished: str, *, warned: bool
) -> tuple[Light, str]:
    """Choose the lamp, and its few words, from every figure that has a margin."""
    kinds = Counter(each.kind for each in comparisons(records))
    ill = _ended_ill(log)
    better, worse = kinds["better"], kinds["worse"]
    words = judgement(better, worse, kinds.total()).capitalize()
    light: Light = "good" if better == kinds.total() else "bad" if worse > better else "mixed"
    if not kinds:
        words = f"{'Ended ill, and not' if ill else 'Not'} compared with baselines yet"
        light = "mixed" if ill else "unknown"
    if warned and light == "good":
        light, words = "mixed", f"{words}, but see the warning"
    return ("mixed", f"Not finished. {words}") if unfinished else (light, words)


def _measured_on_training(records: Sequence[Record], seen: Sequence[ImageSet]) -> list[str]:
    """Warn of figures that are of images of training, which flatter it."""
    theirs = {record["tool"]: measured_on(record) for record in records if record.get("margins")}
    tools = [tool for tool, images in theirs.items() if images and is_seen(images, seen)]
    if not tools:
        return []
    return [
        f"Warning: the figures of {' and '.join(tools)} are of images that training has seen; of "
        "new ones they may be lower."
    ]


def _ended_ill(log: Sequence[Record]) -> bool:
    lines = [line for line in log if "loss" in line]
    if not lines:
        return False
    last = lines[-1]
    return last.get("state", "healthy") != "healthy" or bool(last.get("std", 1) < NO_SPREAD)


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
    better = all(each.kind == "better" for each in comparisons(compared))
    if compared and all(beside) and better:
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


def _worth(records: Sequence[Record]) -> list[str]:
    """Compare every figure with the best baseline's; numbers are of the main ones."""
    compared = comparisons(records)
    if not compared:
        return [
            "selfsup knn, selfsup linear and selfsup retrieval measure it beside baselines: raw "
            "pixels, colours, random weights."
        ]
    if len(compared) == 1:
        return [_worth_of_one(compared[0])]
    heads = {
        "better": "better than every baseline, beyond chance,",
        "worse": "worse than the best baseline",
        "same": "not significantly different from the best baseline",
    }
    sentences: list[str] = []
    for kind, head in heads.items():
        those = [each for each in compared if each.kind == kind]
        if those:
            begin = "They are" if sentences else "Its features are"
            count = f"in {len(those)} of {len(compared)} figures"
            sentences.append(f"{begin} {head} {count}: {_list(those)}.")
    return sentences


def _worth_of_one(compared: Comparison) -> str:
    if compared.kind == "same":
        return f"Its score is not significantly different from the best baseline: {compared.why}."
    if compared.kind == "better":
        return (
            f"Its features are better than every baseline: {compared.why}, a margin beyond chance."
        )
    return f"Its features are worse than the best baseline: {compared.why}."


def _list(compared: Sequence[Comparison]) -> str:
    """Each tool's main figure with its numbers, the names of the others."""
    main = {id(each) for each in compared if each.main} or {id(compared[0])}
    told = [each.why for each in compared if id(each) in main]
    others = [each.name for each in compared if id(each) not in main]
    return "; ".join([*told, *([f"also {', '.join(others)}"] if others else [])])


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Compare every figure that has a margin with the best baseline's."""
    order = {name: i for i, name in enumerate(MAIN)}
    compared = []
    for record in records:
        margins = record.get("margins") or {}
        main = min(margins, key=lambda each: order.get(each, len(MAIN)), default="")
        compared += [
            _compare(record, name, name == main) for name in margins if _rivals(record, name)
        ]
    return compared


def _rivals(record: Record, name: str) -> dict[str, float]:
    """The values of a figure that baselines have with an interval, by their names."""
    figures = {k: v.get(name) for k, v in record.get("baselines", {}).items()}
    return {k: v["value"] for k, v in figures.items() if isinstance(v, dict)}


def _compare(record: Record, name: str, main: bool) -> Comparison:
    figure, margin = record["figures"][name], record["margins"][name]
    baselines = _rivals(record, name)
    best = max(baselines, key=lambda key: baselines[key])
    why = (
        f"{name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] against "
        f"{baselines[best]:.3f} of {best}"
    )
    kind = "better" if margin["low"] > 0 else "worse" if margin["high"] < 0 else "same"
    return Comparison(name, kind, why, main)
