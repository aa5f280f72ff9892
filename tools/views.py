"""Show exactly the views of a step of a recipe, as a page.

    python tools/views.py --data images/ --method simclr --step 1200
    python tools/views.py --data images/ --config runs/simclr/config.yaml --method simclr

Any flag of the recipe may follow, or its settings file, which set views, seed and batch.
"""

import sys
from dataclasses import dataclass
from typing import Any

from selfsup.core.cli import parse, take
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Show exactly the views of a step of a recipe.

    --data IMAGES and any other flag of the recipe may follow.
    """

    method: str = "simclr"
    """A pretraining method: simclr, dcl, moco-v2, byol, dino..."""
    step: int = 0
    """The step to show, counted from 0."""
    images: int = 16
    """The first images of the batch are shown."""
    page: str = "views.html"
    """The file to write."""


OWN = ("--method", "--step", "--images", "--page")


def main(config: Config, flags: list[str]) -> None:
    """Make the step's views again and write the page; `flags` are those of the recipe."""
    from pathlib import Path

    from selfsup.core.errors import require
    from selfsup.data.open import training_source
    from selfsup.report.page import write_page
    from selfsup.report.views import contact_sheet
    from selfsup.training.pretrain import local_batches, pretraining_sampler

    require(config.step >= 0, f"--step must be 0 or more, not {config.step}")
    require(config.images > 0, f"--images must be above 0, not {config.images}")
    recipe = recipe_config(config.method, flags)
    views = recipe.views
    source = training_source(recipe)
    sampler = pretraining_sampler(source, recipe)
    batch = local_batches(source, sampler, views, recipe.seed)[config.step]
    title = f"{config.method}, step {config.step}, seed {recipe.seed}: {recipe.data}"
    sheet = contact_sheet(source, batch, views, title=title, images=config.images)
    write_page(Path(config.page), sheet)
    print(f"{config.page}: {min(config.images, len(batch.positions))} images of {recipe.batch}")


def recipe_config(method: str, args: list[str]) -> Any:
    """Parse the settings of the method's recipe from these flags."""
    from selfsup.catalog import pretraining_recipe

    return parse(pretraining_recipe(method).Config, ["--out", "", *args])  # it runs nowhere


def command() -> None:
    """Run from the command line; flags that are not this tool's are the recipe's."""
    args = sys.argv[1:]
    own: list[str] = []
    for flag in OWN:
        value = take(args, flag)
        own += [] if value is None else [flag, value]
    if {"-h", "--help"} & set(args):
        own = ["--help"]
    launch(lambda config: main(config, args), Config, own)


if __name__ == "__main__":
    command()
