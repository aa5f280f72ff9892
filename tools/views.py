"""Show exactly the views of a step of a recipe, as a page.

    selfsup views --data images/ --method simclr --step 1200
    selfsup views --config runs/triplet/config.yaml --step 1200

The second is of a run, of pretraining or fine-tuning. Any flag of the recipe may follow, or its
settings file, which set views, seed and batch.
"""

import sys
from dataclasses import dataclass
from typing import Any

from selfsup.core.cli import run as launch
from selfsup.core.cli import take
from selfsup.core.help import short_help


@dataclass(frozen=True, kw_only=True)
class Config:
    """Show exactly the views of a step of a recipe."""

    method: str = ""
    """A pretraining method: simclr, dcl, moco-v2, byol, dino... By default that of --config, else
    simclr."""
    step: int = 0
    """The step to show, counted from 0."""
    images: int = 16
    """The first images of the batch are shown."""
    page: str = "views.html"
    """The file to write."""


OWN = ("--method", "--step", "--images", "--page")
OTHERS = [
    ("--data", "Images, as for selfsup pretrain (needed)"),
    ("--pipeline", "Predefined views, as for selfsup pretrain"),
    ("--views.area ...", "Any other flag of the method: selfsup pretrain --help-all lists them"),
]


def main(config: Config, flags: list[str]) -> None:
    """Make the step's views again and write the page; `flags` are those of the recipe."""
    from pathlib import Path

    from selfsup.core.errors import require
    from selfsup.core.live import doing
    from selfsup.core.paths import check_file
    from selfsup.core.words import counted
    from selfsup.report.page import write_page
    from selfsup.report.views import contact_sheet
    from selfsup.training.pretrain import local_batches

    require(config.step >= 0, f"--step must be 0 or more, not {config.step}")
    require(config.images > 0, f"--images must be above 0, not {config.images}")
    check_file(Path(config.page), flag="--page")
    doing("drawing the views")
    method, recipe = recipe_config(config.method, flags)
    views = recipe.views
    source, sampler = sampled_images(recipe)
    batch = local_batches(source, sampler, views, recipe.seed)[config.step]
    title = f"{method}, step {config.step}, seed {recipe.seed}: {recipe.data}"
    sheet = contact_sheet(source, batch, views, title=title, images=config.images)
    write_page(Path(config.page), sheet)
    images = len(batch.positions)
    print(f"{config.page}: {counted(min(config.images, images), 'image')} of {images:,}")


def sampled_images(recipe: Any) -> tuple[Any, Any]:
    """Open the images of these settings, with what samples them."""
    from selfsup.config import FinetuneConfig
    from selfsup.data.open import training_source
    from selfsup.training.finetune import labelled, sampler_and_length
    from selfsup.training.pretrain import pretraining_sampler

    if isinstance(recipe, FinetuneConfig):
        images = labelled(recipe)
        return images.trained, sampler_and_length(recipe, images.labels)[0]
    source = training_source(recipe)
    return source, pretraining_sampler(source, recipe)


def recipe_config(method: str, args: list[str]) -> tuple[str, Any]:
    """Parse the settings of the method's recipe from these flags; return its name with them."""
    from selfsup.tools.pretrain import DEFAULT, method_of, parse_with_pipeline

    from selfsup.catalog import finetuning_recipe, pretraining_recipe, recipes
    from selfsup.training.fill_in import fill_in

    method = method or method_of(args) or DEFAULT
    ranks = f"finetune-{method}" in recipes()
    recipe = finetuning_recipe(method)[0] if ranks else pretraining_recipe(method)
    settings = parse_with_pipeline(["--out", "", *args], recipe)  # it runs nowhere
    return method, fill_in(settings)


def command() -> None:
    """Run from the command line; flags that are not this tool's are the recipe's."""
    args = sys.argv[1:]
    own: list[str] = []
    for flag in OWN:
        value = take(args, flag)
        own += [] if value is None else [flag, value]
    if {"-h", "--help", "--help-all"} & set(args):
        print(short_help(Config, OTHERS))
        return
    launch(lambda config: main(config, args), Config, own)


if __name__ == "__main__":
    command()
