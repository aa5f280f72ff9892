"""Peak memory of `selfsup embed`, by the number of images.

    python tools/bench/bench_embed.py
    python tools/bench/bench_embed.py --rows 200000 1000000 5000000

Images of 8 pixels are made from their numbers and embedded by one layer, each number of images in
a fresh process, so that nothing but the folder grows.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import peak

from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.augment.boxes import CropSpec
    from selfsup.data.sources import Columns, Crops

SIDE, WIDTH = 8, 64


@dataclass(frozen=True, kw_only=True)
class Config:
    """Peak memory of embedding, by the number of images."""

    rows: tuple[int, ...] = (20_000, 200_000)
    """Numbers of images."""
    part: int = 65536
    """Images in a part."""
    work: int = 0
    """Internal: the number of images of this process."""


class Generated:
    """Images that are made from their numbers when they are read, and names as well."""

    labels: "Tensor | None" = None
    classes: Sequence[str] = ()
    columns: "Columns" = {}  # noqa: RUF012  (never written to)
    in_memory = True

    def __init__(self, images: int) -> None:
        """Have so many."""
        self.images = images

    def __len__(self) -> int:
        return self.images

    def name(self, position: int) -> str:
        """A path as a long one is."""
        return f"images/of/a/folder/{position // 1000:06d}/{position:09d}.jpg"

    def pixels(self, position: int) -> np.ndarray:
        """Noise, by the position."""
        image: np.ndarray = _noise(np.array([position]))[0]
        return image

    def stored(self, position: int) -> None:
        """There is no file."""

    def crops(self, positions: Sequence[int], *specs: "CropSpec") -> "Crops":
        """All images are as large as their view."""
        import torch

        from selfsup.data.sources import Crops

        images = torch.from_numpy(_noise(np.asarray(positions))).permute(0, 3, 1, 2)[:, None]
        return Crops((images,) * len(specs), {})


def _noise(positions: np.ndarray) -> np.ndarray:
    """Pixels by a hash of the position and the place. uint8 [n, s, s, 3]."""
    places = np.arange(SIDE * SIDE * 3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (positions.astype(np.uint64)[:, None] + places) * np.uint64(0xBF58476D1CE4E5B9)
    levels: np.ndarray = (mixed >> np.uint64(56)).astype(np.uint8).reshape(-1, SIDE, SIDE, 3)
    return levels


def main(config: Config) -> None:
    """Measure each number in a fresh process and print."""
    if config.work:
        print(json.dumps(measure(config.work, config.part)))
        return
    for rows in config.rows:
        command = [sys.executable, __file__, "--work", str(rows), "--part", str(config.part)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{rows:,} images: peak {result['peak']:.0f} MB, {result['before']:.0f} before; "
            f"{result['seconds']:.0f} s, {result['disk']:.0f} MB on disk",
            flush=True,
        )


def measure(rows: int, part: int) -> dict[str, Any]:
    """Embed so many images into a folder that is removed. Megabytes and seconds."""
    import torch
    from torch import nn

    from selfsup.config import EmbedConfig, ViewsConfig
    from selfsup.evaluate.embedding_folder import make_parts
    from selfsup.evaluate.model import EvaluatedModel

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE * 3, WIDTH))
    model = EvaluatedModel("one layer", encoder, ViewsConfig(size=SIDE))
    config = EmbedConfig(model="one layer", data="generated", batch=512, part=part, workers=0)
    before, began = peak(), time.monotonic()
    with tempfile.TemporaryDirectory() as room:
        out = Path(room) / "out"
        make_parts(out, model, Generated(rows), config, share=(0, 1))
        size = sum(file.stat().st_size for file in out.iterdir())
    seconds = time.monotonic() - began
    return {"peak": peak(), "before": before, "seconds": seconds, "disk": size / 1e6}


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
