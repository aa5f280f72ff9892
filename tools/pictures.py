"""Make the pictures of the READMEs again, and the figures beside them.

    python tools/pictures.py

Draws cloths, 120 to train on and 16 others to search among; pretrains without labels, fine-tunes
with labels, and judges both and raw pixels on the 16. The images are drawings, since photographs of
people that may be shown here are hard to come by. Needs some minutes on two CPU cores.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfsup.core.cli import run as launch
from selfsup.core.paths import make_folder

SIDE = 64  # pixels of a drawing
DRAWN: dict[str, Any] = {
    "size": 32,
    "area": (0.3, 1.0),
    "rotate": 1.0,
    "strength": 0.8,
    "hue": 0.1,
    "saturation": 0.8,
}
"""Views, which vary what varies among the images of one cloth."""
SHOWN = ("SIMCLR", "FACTORY", "REID", "DOCUMENTS")
"""Pipelines whose views are drawn."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Make the pictures of the READMEs again, and the figures beside them."""

    out: str = "runs/cloths"
    """Folder of runs; the same command goes on with what was stopped."""
    picture: str = ".github/pictures/neighbours.png"
    """Where the picture of neighbours goes."""
    views: str = ".github/pictures/views.png"
    """Where the picture of views goes."""
    steps: int = 240
    """Steps of pretraining; fine-tuning takes half as many."""
    seed: int = 0
    """Of all random numbers, also of the cloths and of the choice of queries."""


def main(config: Config) -> None:
    """Draw, train twice, judge, and put the neighbours in one picture."""
    from selfsup.recipes import finetune_triplet, pretrain_simclr
    from selfsup.tools import demo, neighbours

    from selfsup.config import RetrievalConfig
    from selfsup.data.demo_drawings import write_demo_drawings
    from selfsup.evaluate.run import retrieval

    out = Path(config.out)
    make_folder(out)
    train, test = write_demo_drawings(out, side=SIDE, seed=config.seed)
    pretrained, finetuned = str(out / "pretrained"), str(out / "finetuned")
    first = demo.pretraining(train, pretrained, steps=config.steps, seed=config.seed)
    pretrain_simclr.main(replace(first, views=replace(first.views, **DRAWN, grey=0.2, blur=0.0)))
    second = demo.finetuning(train, finetuned, steps=max(1, config.steps // 2), seed=config.seed)
    second["views"] = replace(second["views"], **DRAWN)
    finetune_triplet.main(finetune_triplet.Config(**second, init=pretrained))
    judged = RetrievalConfig(
        model=finetuned, data=str(test), against=(pretrained,), seed=config.seed
    )
    result = retrieval(judged)
    result.save()
    result.print()
    neighbours.main(
        neighbours.Config(
            models=("pixels", pretrained, finetuned),
            names=("raw pixels", "pretrained, no labels", "fine-tuned"),
            data=str(test),
            size=DRAWN["size"],
            seed=config.seed,
            out=config.picture,
        )
    )
    draw_views(Path(config.views), seed=config.seed)


def draw_views(out: Path, *, seed: int) -> None:
    """Draw a cloth and six of its views by each of four pipelines, a pipeline a row.

    Args:
        out: the picture.
        seed: of the cloth and of the views.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    from selfsup.augment import random_views
    from selfsup.config import pipelines
    from selfsup.data.demo_drawings import drawing

    cloth = torch.from_numpy(drawing(0, 0, side=SIDE, seed=seed)).permute(2, 0, 1)[None]
    step, margin = SIDE + 4, 100
    sheet = Image.new("RGB", (margin + 7 * step + 8, len(SHOWN) * step + 4), "#ffffff")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, name in enumerate(SHOWN):
        views = replace(getattr(pipelines, name), size=SIDE, views=6)
        mean, std = (torch.tensor(x)[:, None, None] for x in views.normalization)
        (seen,) = random_views(cloth, views, seed=seed)  # [1, 6, 3, side, side]
        pixels = [cloth[0], *(seen[0] * std + mean).clamp(0, 1).mul(255).round()]
        pen.text((4, row * step + SIDE // 2 - 8), name, "#1c1c1c", font=font)
        for column, image in enumerate(pixels):
            left = margin + column * step + (8 if column else 0)
            tile = Image.fromarray(image.permute(1, 2, 0).numpy().astype(np.uint8))
            sheet.paste(tile, (left, row * step + 4))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
