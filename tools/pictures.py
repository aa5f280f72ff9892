"""Make the picture of the README again, and the figures beside it.

    python tools/pictures.py

Draws cloths, 120 to train on and 16 others to search among; pretrains without labels, fine-tunes
with labels, and judges both and raw pixels on the 16. The images are drawings, since photographs of
people that may be shown here are hard to come by. Needs some minutes on two CPU cores.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfsup.core.cli import run as launch

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


@dataclass(frozen=True, kw_only=True)
class Config:
    """Make the picture of the README again, and the figures beside it."""

    out: str = "runs/cloths"
    """Folder of runs; the same command goes on with what was stopped."""
    picture: str = ".github/pictures/neighbours.png"
    """Where the picture goes."""
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
    out.mkdir(parents=True, exist_ok=True)
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


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
