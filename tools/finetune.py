"""Fine-tune an encoder on labelled images, with any ranking loss.

    selfsup finetune --data products/ --init runs/a --out runs/b --loss triplet --miner semi-hard
    selfsup finetune --data products/ --init runs/a --out runs/b --distil runs/large
    accelerate launch -m selfsup finetune --data products/ --init runs/a --out runs/b --loss arcface

The losses are those of recipes/finetune_*.py: triplets, pairs and proxies.
"""

import sys

from selfsup.catalog import finetuning_recipe, losses
from selfsup.core.cli import attempt, leave, take
from selfsup.core.errors import require

DEFAULT = "triplet"


def main(args: list[str]) -> None:
    """Choose the recipe and run it with the other flags."""
    from selfsup.tools.pretrain import PIPELINE_HELP, method_of, parse_with_pipeline, show_help

    args = list(args)
    loss, miner, teacher = (take(args, flag) for flag in ("--loss", "--miner", "--distil"))
    name = loss or method_of(args) or DEFAULT
    recipe, settings = finetuning_recipe(name)
    first = [("--loss", f"One of {', '.join(losses())} ({DEFAULT})")]
    if default := getattr(recipe.Config.method, "miner", ""):
        first += [("--miner", f"Which triplets or pairs of a batch to learn from ({default})")]
    first += [("--distil", "A teacher whose features are kept meanwhile: as --init has it")]
    about = f"Fine-tune an encoder on labelled images. The flags are those of --loss {name}."
    if show_help(args, recipe.Config, [*first, PIPELINE_HELP], about):
        return
    short = {"loss": ("method.loss", loss), "miner": ("method.miner", miner)}
    short["distil"] = ("distil.teacher", teacher)
    for flag, (setting, value) in short.items():
        twice = any(arg.split("=")[0] == f"--{setting}" for arg in args)
        require(value is None or not twice, f"--{flag} is --{setting}: give one")
    if miner is not None:
        require(hasattr(recipe.Config.method, "miner"), f"--miner has no effect with --loss {loss}")
        args += ["--method.miner", miner]
    if loss is not None:
        args += ["--method.loss", settings["loss"]]
    if teacher is not None:
        require(bool(teacher), "--distil needs a teacher: a run, a folder, a file or timm:NAME")
        args += ["--distil.teacher", teacher]
    config = parse_with_pipeline(args, recipe)
    recipe.main(config)
    from selfsup.training.summary import print_next

    print_next(config)


def command() -> None:
    """Run from the command line."""
    leave(attempt(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    command()
