"""The `selfsup` command: names the recipes and tools and runs one of them."""

import importlib
import importlib.util
import sys

from selfsup.core.errors import did_you_mean
from selfsup.core.version import __version__

COMMANDS = {
    "demo": ("tools.demo", "the whole main job on real images, on a laptop"),
    "pretrain-simclr": ("recipes.pretrain_simclr", "pretrain an encoder on unlabelled images"),
    "pretrain-dcl": ("recipes.pretrain_dcl", "the same with DCL"),
    "pretrain-moco-v2": ("recipes.pretrain_moco_v2", "the same with MoCo v2"),
    "pretrain-moco-v3": ("recipes.pretrain_moco_v3", "the same with MoCo v3"),
    "pretrain-byol": ("recipes.pretrain_byol", "the same with BYOL"),
    "pretrain-simsiam": ("recipes.pretrain_simsiam", "the same with SimSiam"),
    "pretrain-barlow-twins": ("recipes.pretrain_barlow_twins", "the same with Barlow Twins"),
    "pretrain-vicreg": ("recipes.pretrain_vicreg", "the same with VICReg"),
    "pretrain-swav": ("recipes.pretrain_swav", "the same with SwAV"),
    "pretrain-dino": ("recipes.pretrain_dino", "the same with DINO"),
    "pretrain-nnclr": ("recipes.pretrain_nnclr", "the same with NNCLR"),
    "pretrain-lejepa": ("recipes.pretrain_lejepa", "the same with LeJEPA"),
    "pretrain-tico": ("recipes.pretrain_tico", "the same with TiCo"),
    "pretrain-supcon": ("recipes.pretrain_supcon", "the same with SupCon, which needs labels"),
    "finetune-triplet": ("recipes.finetune_triplet", "fine-tune it with labels, for retrieval"),
    "finetune-pairs": ("recipes.finetune_pairs", "the same with losses of pairs"),
    "finetune-proxies": ("recipes.finetune_proxies", "the same with one proxy for each class"),
    "compare-losses": ("tools.compare_losses", "every ranking loss on the demo's photographs"),
    "compare-methods": ("tools.compare_methods", "every pretraining method in the same time"),
    "doctor": ("tools.doctor", "can this machine train, and is every gradient right"),
    "audit": ("tools.audit", "what is broken, doubled or leaked among images"),
    "pack": ("tools.pack", "many images in one file, quick to read"),
    "views": ("tools.views", "a contact sheet of what a step of a recipe sees"),
    "knn": ("tools.knn", "weighted k-NN accuracy of frozen features"),
    "linear": ("tools.linear", "linear-probe accuracy of frozen features"),
    "retrieval": ("tools.retrieval", "Recall@k, MAP@R, mAP: search among frozen features"),
    "verify": ("tools.verify", "same or not: ROC, EER, and the threshold to use"),
    "report": ("tools.report", "one page on a run, or on several side by side"),
    "index": ("tools.index", "embeddings of a gallery, to be searched"),
    "search": ("tools.search", "the neighbours of an image in an index"),
    "bundle": ("tools.bundle", "one folder with weights, preprocessing and threshold"),
    "health": ("tools.health", "spread, rank and hubs of features, without labels"),
}


def usage() -> str:
    """What `selfsup --help` prints."""
    lines = [f"  {name:<23}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            f"selfsup {__version__}: unlabelled images -> a proven embedding model",
            "",
            "usage: selfsup COMMAND [--help] [flags]",
            "",
            *lines,
            "",
            "On several GPUs, the same recipes through accelerate:",
            "  accelerate launch -m selfsup.recipes.pretrain_simclr --data images/ --out run",
        ]
    )


def main() -> None:
    """Run one command; help needs no torch."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command == "--version":
        print(__version__)
    elif command not in COMMANDS:
        print(f"error: no command {command!r}{did_you_mean(command, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    else:
        module = importlib.import_module(f"selfsup.{COMMANDS[command][0]}")
        sys.argv = [f"selfsup {command}", *sys.argv[2:]]
        module.command()


if __name__ == "__main__":
    main()
