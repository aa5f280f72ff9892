"""Several commands in one process, as a person gives them one after the other: IMAGES."""

import os
import sys
from collections.abc import Callable
from importlib import import_module

from selfsup.core.cli import attempt, end

images = sys.argv[1]
SMALL = "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
TRAIN = ["--encoder.args", SMALL, "--views.size", "16", "--workers", "0"]
PRETRAIN = [*TRAIN, "--method.hidden", "16", "--method.dim", "8", "--batch", "8", "--steps", "120"]
PROBE = ["--probe.data", images, "--probe.every", "40"]
FINETUNE = ["--classes", "3", "--images", "2", "--steps", "4", "--workers", "0", "--init", "runs/a"]
COMMANDS: dict[str, list[str]] = {
    "pretrain": ["--data", images, "--out", "runs/a", *PROBE, *PRETRAIN],
    "finetune": ["--data", images, "--out", "runs/b", *FINETUNE],
    "report": ["runs/b"],
    "linear": ["--model", "runs/b", "--data", images, "--resamples", "20"],
    "verify": ["--model", "runs/b", "--data", images, "--resamples", "20"],
    "audit": ["--data", images, "--out", "audit.json"],
    "views": ["--data", images, "--batch", "8"],
}


def begin(name: str) -> Callable[[], None]:
    """What the command of that name does, its modules imported within."""
    sys.argv = [f"selfsup {name}", *COMMANDS[name]]
    return lambda: import_module(f"selfsup.tools.{name}").command()


if __name__ == "__main__":
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    for name in COMMANDS:
        print(f"$ selfsup {name}", flush=True)
        if status := attempt(begin(name)):
            sys.exit(status)
    end()
