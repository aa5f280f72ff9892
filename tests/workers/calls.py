"""The public calls, as a script of a user's: `calls.py IMAGES RUNS`."""

import sys
from pathlib import Path
from typing import Any

import selfsup


def line(*words: object) -> None:
    """Print in one write: lines of two processes must not be cut."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


SMALL: dict[str, Any] = {
    "encoder": {
        "args": "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
    },
    "views": {"size": 16},
    "log_every": 2,
    "steps": 4,
}

if __name__ == "__main__":
    images, runs = Path(sys.argv[1]), Path(sys.argv[2])
    run = selfsup.pretrain(images, out=runs / "a", method="simclr", batch=8, **SMALL)
    run = selfsup.finetune(
        images,
        init=run,
        loss="triplet",
        miner="batch-hard",
        out=runs / "b",
        **(SMALL | {"classes": 3, "images": 2}),
    )
    line(selfsup.evaluate.knn(run, images, test=images, resamples=10))
    z = selfsup.embed(run, images)
    line("embedded", tuple(z.x.shape), len(z.names), z.labels and z.labels[0])
    (query, *_) = sorted(images.rglob("*.png"))
    hits = selfsup.search(run, images, query, k=3)
    line("hit", hits[0])
    line("loaded", tuple(selfsup.load(runs / "b").embed([query]).shape))
