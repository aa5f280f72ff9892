"""Fine-tune an encoder on labelled images, with any ranking loss.

    selfsup finetune --data products/ --init runs/a --out runs/b --loss triplet --miner semi-hard
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
    loss, miner = (take(args, flag) for flag in ("--loss", "--miner"))
    name = loss or method_of(args) or DEFAULT
    recipe, settings = finetuning_recipe(name)
    first = [("--loss", f"One of {', '.join(losses())} ({DEFAULT})")]
    if default := getattr(recipe.Config.method, "miner", ""):
        first += [("--miner", f"Which triplets or pairs of a batch to learn from ({default})")]
    about = f"Fine-tune an encoder on labelled images. The flags are those of --loss {name}."
    if show_help(args, recipe.Config, [*first, PIPELINE_HELP], about):
        return
    for short, value in (("loss", loss), ("miner", miner)):
        twice = any(arg.split("=")[0] == f"--method.{short}" for arg in args)
        require(value is None or not twice, f"--{short} is --method.{short}: give one")
    if miner is not None:
        require(hasattr(recipe.Config.method, "miner"), f"--miner has no effect with --loss {loss}")
        args += ["--method.miner", miner]
    if loss is not None:
        args += ["--method.loss", settings["loss"]]
    recipe.main(parse_with_pipeline(args, recipe))


def command() -> None:
    """Run from the command line."""
    leave(attempt(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    command()
