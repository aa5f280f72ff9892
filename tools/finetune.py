"""Fine-tune an encoder on labelled images, with any ranking loss.

    selfsup finetune --data products/ --init runs/a --out runs/b --loss triplet --miner semi-hard
    accelerate launch -m selfsup finetune --data products/ --init runs/a --out runs/b --loss arcface

The losses are those of recipes/finetune_*.py: triplets, pairs and proxies.
"""

import sys

from selfsup.catalog import finetuning_recipe, losses, pipeline_views
from selfsup.core.cli import attempt, leave, parse, take
from selfsup.core.errors import require
from selfsup.core.help import short_help

DEFAULT = "triplet"


def main(args: list[str]) -> None:
    """Choose the recipe and run it with the other flags."""
    from selfsup.tools.pretrain import PIPELINE_HELP, method_of

    args = list(args)
    loss, miner, pipeline = (take(args, flag) for flag in ("--loss", "--miner", "--pipeline"))
    recipe, settings = finetuning_recipe(loss or method_of(args) or DEFAULT)
    if {"-h", "--help"} & set(args):
        first = [
            ("--loss", f"One of {', '.join(losses())} ({DEFAULT})"),
            ("--miner", "Which triplets or pairs of a batch to learn from (batch-hard; all)"),
            PIPELINE_HELP,
        ]
        print(short_help(recipe.Config, first=first))
        return
    for short, value in (("loss", loss), ("miner", miner)):
        twice = any(arg.split("=")[0] == f"--method.{short}" for arg in args)
        require(value is None or not twice, f"--{short} is --method.{short}: give one")
    if miner is not None:
        require(hasattr(recipe.Config.method, "miner"), f"--miner has no effect with --loss {loss}")
        args += ["--method.miner", miner]
    if loss is not None:
        args += ["--method.loss", settings["loss"]]
    in_file = any(arg.split("=")[0] == "--config" for arg in args)
    require(
        pipeline is None or not in_file,
        "--pipeline and --config both choose the views: give one, and single --views.* flags",
    )
    defaults = {} if pipeline is None else {"views": pipeline_views(pipeline, recipe)}
    recipe.main(parse(recipe.Config, args, defaults))


def command() -> None:
    """Run from the command line."""
    leave(attempt(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    command()
