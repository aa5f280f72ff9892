"""Pretrain an encoder on unlabelled images, with any method.

    selfsup pretrain --data images/ --out runs/a --method moco-v2
    accelerate launch -m selfsup pretrain --data images/ --out runs/a

Each method is a recipe of its own, recipes/pretrain_*.py, with its own settings.
"""

import sys
from pathlib import Path
from typing import Any

from selfsup.catalog import methods, pipeline_views, pretraining_recipe
from selfsup.config.pipelines import PIPELINES
from selfsup.core.cli import attempt, leave, parse, take
from selfsup.core.errors import require
from selfsup.core.help import short_help

DEFAULT = "simclr"
PIPELINE_HELP = ("--pipeline", f"Predefined views instead of the method's: {', '.join(PIPELINES)}")


def main(args: list[str]) -> None:
    """Choose the recipe and run it with the other flags."""
    args = list(args)
    method = take(args, "--method") or method_of(args) or DEFAULT
    recipe = pretraining_recipe(method)
    pipeline = take(args, "--pipeline")
    if {"-h", "--help"} & set(args):
        method_help = ("--method", f"One of {', '.join(methods())} ({DEFAULT})")
        print(short_help(recipe.Config, first=[method_help, PIPELINE_HELP]))
        return
    in_file = any(arg.split("=")[0] == "--config" for arg in args)
    require(
        pipeline is None or not in_file,
        "--pipeline and --config both choose the views: give one, and single --views.* flags",
    )
    defaults = {} if pipeline is None else {"views": pipeline_views(pipeline, recipe)}
    recipe.main(parse(recipe.Config, args, defaults))


def method_of(args: list[str]) -> str | None:
    """Read the method's name from the file of `--config`, if it has one."""
    file = take(list(args), "--config")
    if file is None:
        return None
    import yaml

    try:
        settings: Any = yaml.safe_load(Path(file).read_text())
        return str(settings["method"]["name"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None  # the recipe reads the file again, and its error says what is wrong


def command() -> None:
    """Run from the command line."""
    leave(attempt(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    command()
