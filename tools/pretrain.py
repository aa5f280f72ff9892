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
from selfsup.core.help import describe, short_help
from selfsup.core.yaml_files import read_yaml

DEFAULT = "simclr"
PIPELINE_HELP = ("--pipeline", f"Predefined views instead of the method's: {', '.join(PIPELINES)}")


def main(args: list[str]) -> None:
    """Choose the recipe, run it with the other flags, say what to try next."""
    args = list(args)
    method = take(args, "--method") or method_of(args) or DEFAULT
    recipe = pretraining_recipe(method)
    first = [("--method", f"One of {', '.join(methods())} ({DEFAULT})"), PIPELINE_HELP]
    about = f"Pretrain an encoder on unlabelled images. The flags are those of --method {method}."
    if not show_help(args, recipe.Config, first, about):
        config = parse_with_pipeline(args, recipe)
        recipe.main(config)
        from selfsup.training.summary import print_next

        print_next(config)


def show_help(args: list[str], config: Any, first: list[tuple[str, str]], about: str) -> bool:
    """Print the help that `args` ask for: `first` flags, then some or all of the Config's."""
    if {"-h", "--help"} & set(args):
        print(short_help(config, first, about))
        return True
    if "--help-all" in args:  # tyro prints the others, and ends the process
        print("\n".join([about, "", *describe(first)]))
    return False


def parse_with_pipeline(args: list[str], recipe: Any) -> Any:
    """Make the recipe's Config from its flags, with the views of `--pipeline` if that is there.

    Raises:
        UserError: a flag does not fit, or a file of settings has views too.
    """
    args = list(args)
    pipeline = take(args, "--pipeline")
    in_file = any(arg.split("=")[0] == "--config" for arg in args)
    require(
        pipeline is None or not in_file,
        "--pipeline and --config both choose the views: give one, and single --views.* flags",
    )
    defaults = {} if pipeline is None else {"views": pipeline_views(pipeline, recipe)}
    return parse(recipe.Config, args, defaults)


def method_of(args: list[str]) -> str | None:
    """Read the method's name from the file of `--config`, if it has one."""
    file = take(list(args), "--config")
    if file is None:
        return None
    try:
        settings: Any = read_yaml(Path(file))[1]
        return str(settings["method"]["name"])
    except (ValueError, KeyError, TypeError):
        return None  # the recipe reads the file again, and its error says what is wrong


def command() -> None:
    """Run from the command line."""
    leave(attempt(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    command()
