"""Which rate and miner learn everywhere: the study behind the defaults and the alarm.

    PYTHONPATH=. python tools/bench/bench_defaults.py --out runs/defaults
    PYTHONPATH=. python tools/bench/bench_defaults.py --sets emoji=train.npz,test.npz

For each set, encoders of two starts (random weights, SimCLR on its training images) are fine-tuned
with each miner and rate, and evaluated on classes that no training has seen. Printed are MAP@R, how
far each choice is from the best of its row at most, and the area under the ROC of the alarm's score
for "worse than it began". The same command goes on after the last finished run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.core.cli import run as launch

BATCH = 64
ENCODER = {"name": "test_resnet", "stem": "standard"}
QUIET: dict[str, Any] = {"encoder": ENCODER, "report": False, "workers": 0, "save_every": 10**6}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Compare rates and miners on several sets, from two starts."""

    out: str = "runs/defaults"
    """Where runs and figures go."""
    sets: tuple[str, ...] = ()
    """More sets: NAME=TRAIN.npz,TEST.npz, with other classes in the second."""
    rates: tuple[float, ...] = (2.5e-4, 5e-4, 1e-3, 3e-3)
    """Peak rates of AdamW for a batch of 64."""
    miners: tuple[str, ...] = ("semi-hard", "batch-hard")
    """Miners of triplets."""
    steps: int = 300
    """Steps of each run."""
    seed: int = 0
    """Seed of all runs."""


def main(config: Config) -> None:
    """Run what is not there yet, and print the tables."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    sets = dict(write_sets(out)) | dict(map(_named, config.sets))
    results = out / "results.jsonl"
    done = read_results(results)
    for name, start, miner, rate in product(
        sets, ("simclr", "random"), config.miners, config.rates
    ):
        job = {"set": name, "start": start, "miner": miner, "rate": rate, "steps": config.steps}
        job["seed"] = config.seed
        if not any(record["job"] == job for record in done):
            done.append(measure(job, sets[name], out))
            results.write_text("".join(json.dumps(record) + "\n" for record in done))
    asked = {"steps": config.steps, "seed": config.seed}
    done = [record for record in done if asked.items() <= record["job"].items()]
    print(table(done))
    print(alarm(done))


def read_results(file: Path) -> list[dict[str, Any]]:
    """Read the runs that are finished; those of before seeds were recorded had seed 0."""
    if not file.exists():
        return []
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [record | {"job": {"seed": 0} | record["job"]} for record in records]


def _named(text: str) -> tuple[str, tuple[str, str]]:
    name, files = text.split("=")
    train, test = files.split(",")
    return name, (train, test)


def write_sets(out: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Write the sets that packages bring: faces, digits and places of photographs."""
    from sklearn.datasets import load_digits

    from selfsup.data.demo_faces import write_demo_faces

    (out / "faces").mkdir(exist_ok=True)
    train, test = write_demo_faces(out / "faces", side=48, seed=5)
    yield "faces", (str(train), str(test))
    digits = load_digits()
    framed = np.zeros((len(digits.images), 28, 28, 3), np.uint8)
    enlarged = digits.images.repeat(2, 1).repeat(2, 2)[..., None]
    framed[:, 6:22, 6:22] = (enlarged / 16 * 255).astype(np.uint8)
    yield "digits", _split(out, "digits", framed, digits.target, [2, 5, 7, 9])
    yield "places", _split(out, "places", *_places(), list(range(80, 120)))


def _places(each: int = 8, places: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Places of two photographs, moved, scaled, brighter or darker: [n, 32, 32, 3] and [n]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(2)
    photographs = [Image.fromarray(x) for x in load_sample_images().images]
    images = []
    for place in range(places):
        photograph = photographs[place % 2]
        side = rng.integers(50, 90)
        left, top = rng.integers(20, 500), rng.integers(20, 300)
        for _ in range(each):
            dx, dy, s = *rng.integers(-15, 16, 2), side * rng.uniform(0.8, 1.25)
            box = (left + dx, top + dy, left + dx + s, top + dy + s)
            crop = photograph.resize((32, 32), Image.Resampling.BICUBIC, box=box)
            images.append(np.asarray(crop, np.float32) * rng.uniform(0.6, 1.4))
    return np.clip(images, 0, 255).astype(np.uint8), np.arange(places).repeat(each)


def _split(
    out: Path, name: str, images: np.ndarray, labels: np.ndarray, test: list[int]
) -> tuple[str, str]:
    held = np.isin(labels, test)
    files = out / f"{name}-train.npz", out / f"{name}-test.npz"
    for file, part in zip(files, (~held, held), strict=True):
        np.savez(file, images=images[part], labels=labels[part])
    return str(files[0]), str(files[1])


def measure(job: dict[str, Any], files: tuple[str, str], out: Path) -> dict[str, Any]:
    """Train one run and return its figures, those of its start, and its log."""
    import selfsup

    train, test = files
    quiet = QUIET | {"seed": job["seed"], "log_every": max(1, job["steps"] // 15)}
    start: Any = ""
    if job["start"] == "simclr":
        folder = out / f"{job['set']}-simclr-{job['seed']}"
        start = selfsup.pretrain(train, out=folder, steps=300, batch=128, **quiet)
    run = selfsup.finetune(
        train,
        out=out / "-".join(map(str, job.values())),
        init=start,
        miner=job["miner"],
        steps=job["steps"],
        optim={"lr": job["rate"], "rule": "none"},
        probe={"held_out": 0.0},  # the last step of every run is compared
        **(quiet if not start else {k: v for k, v in quiet.items() if k != "encoder"}),
    )
    figures = [_map(run, test), _map(start or ENCODER["name"], test)]
    return {"job": job, "after": figures[0], "before": figures[1], "log": run.log}


def _map(model: Any, test: str) -> float:
    import selfsup

    size = int(np.load(test)["images"].shape[1])
    settings = {} if not isinstance(model, str) else {"size": size}
    result = selfsup.evaluate.retrieval(model, test, baselines=[], resamples=0, **settings)
    figure = result.figures["MAP@R"]
    return figure if isinstance(figure, float) else figure.value


def table(done: list[dict[str, Any]]) -> str:
    """MAP@R by set and start for each miner and rate, and each choice's largest loss.

    Runs that are not there, such as those of other miners or rates before, are left blank.
    """
    choices = list(dict.fromkeys((r["job"]["miner"], r["job"]["rate"]) for r in done))
    rows = dict.fromkeys((r["job"]["set"], r["job"]["start"]) for r in done)
    found = {tuple(r["job"][k] for k in ("set", "start", "miner", "rate")): r for r in done}
    heads = ["set, start", "before", *(f"{miner} {rate:g}" for miner, rate in choices)]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    worst: dict[tuple[str, float], float] = dict.fromkeys(choices, 0.0)
    for row in rows:
        records = {c: found[(*row, *c)] for c in choices if (*row, *c) in found}
        best = max(r["after"] for r in records.values())
        for choice, r in records.items():
            worst[choice] = max(worst[choice], best - r["after"])
        values = [f"{records[c]['after']:.3f}" if c in records else "" for c in choices]
        before = next(iter(records.values()))["before"]
        lines.append(f"| {', '.join(row)} | {before:.3f} | {' | '.join(values)} |")
    lost = " | ".join(f"{value:.3f}" for value in worst.values())
    return "\n".join([*lines, f"| loss at most | | {lost} |"])


def alarm(done: list[dict[str, Any]]) -> str:
    """Area under the ROC of the alarm's score for runs that are worse than they began."""
    from sklearn.metrics import roc_auc_score

    from selfsup.methods.health import ALARM, change, window

    scores = [change(r["log"][0], r["log"][-window(BATCH) :], BATCH).score for r in done]
    worse = [r["after"] < r["before"] for r in done]
    rung = [score >= ALARM for score in scores]
    area = f"{roc_auc_score(worse, scores):.3f}" if 0 < sum(worse) < len(worse) else "not defined"
    right = sum(a and b for a, b in zip(rung, worse, strict=True))
    return (
        f"{len(done)} runs, {sum(worse)} worse than they began: area under ROC {area}; "
        f"{sum(rung)} alarms, {right} of them right"
    )


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
