"""The `selfsup` command: names what it can do, and runs one tool or recipe."""

import importlib
import sys

from selfsup.catalog import recipes
from selfsup.core.cli import attempt, end, leave
from selfsup.core.errors import UserError, did_you_mean
from selfsup.core.version import __version__

GROUPS: dict[str, dict[str, str]] = {
    "train": {
        "pretrain": "an encoder on unlabelled images: --method simclr, dino...",
        "finetune": "it on labelled ones, for retrieval: --loss triplet...",
        "demo": "the whole job on real photographs, in five minutes",
    },
    "look": {
        "views": "what a training step sees, as a page",
        "status": "what a run does now, or how it ended",
        "report": "one page on a run, or several side by side",
        "neighbours": "one picture of what training changed",
    },
    "judge": {
        "knn": "k-NN accuracy of frozen features",
        "linear": "linear-probe accuracy of frozen features",
        "retrieval": "Recall@k, MAP@R, mAP: search among frozen features",
        "verify": "same or not: ROC, EER, and the threshold to use",
        "health": "spread, rank and hubs of features, without labels",
        "compare-losses": "every ranking loss on the demo's photographs",
        "compare-methods": "every pretraining method in the same time",
        "compare-distilled": "a student, its teacher, and the gap that it closed",
    },
    "adapt": {
        "adapt": "published weights to your images, and whether it helped",
        "blend": "the best mix of two encoders' weights, on your own sets",
    },
    "search": {
        "embed": "any number of images into Parquet files, once",
        "store": "embeddings in PostgreSQL, Qdrant, FAISS or Lance",
        "index": "embeddings of a gallery, to be searched",
        "search": "the neighbours of an image in an index",
        "bundle": "one folder with weights, preprocessing and threshold",
    },
    "data": {
        "audit": "what is broken, doubled or leaked among images",
        "pack": "many images in one file, quick to read",
    },
    "machine": {
        "doctor": "can this machine train, is every gradient right",
    },
}
"""What a person wants, the commands for it, and a few words on each: they are in tools/."""
TOOLS = [name for commands in GROUPS.values() for name in commands]


def usage() -> str:
    """What `selfsup --help` prints."""
    lines = [f"selfsup {__version__}: unlabelled images -> a proven embedding model", ""]
    lines += ["usage: selfsup COMMAND [--help] [flags]"]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<18}{about}" for name, about in commands.items()]
    return "\n".join(
        [
            *lines,
            "",
            "On several GPUs the same commands through accelerate:",
            "  accelerate launch -m selfsup pretrain --data images/ --out runs/a",
        ]
    )


def main() -> None:
    """Run one command; help needs no torch."""
    if status := attempt(run):
        leave(status)
    end()


def run() -> None:
    """Find the command and run it with the other arguments."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    known = [*TOOLS, *recipes()]
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command in ("--version", "version"):
        print(__version__)
    elif command not in known:
        guess = did_you_mean(command, known)
        raise UserError(f"there is no command {command!r}{guess}; see selfsup --help")
    else:
        room = "tools" if command in TOOLS else "recipes"
        module = importlib.import_module(f"selfsup.{room}.{command.replace('-', '_')}")
        sys.argv = [f"selfsup {command}", *sys.argv[2:]]
        module.command()


if __name__ == "__main__":
    main()
