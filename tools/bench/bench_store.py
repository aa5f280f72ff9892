"""Seconds and peak memory of `selfsup store`, by the number of rows.

    python tools/bench/bench_store.py --to postgresql://localhost/bench#rows
    python tools/bench/bench_store.py --to faiss:out --rows 1000000

Rows are those of `bench_embed.py`, 64 wide; each number of them is stored in a fresh process, in a
table or folder of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench_embed import SIDE, WIDTH, Generated
from timing import peak

from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Seconds and peak memory of storing embeddings, by the number of rows."""

    to: str
    """A destination of selfsup store; the number of rows is added to its name."""
    rows: tuple[int, ...] = (20_000, 200_000)
    """Numbers of rows."""
    part: int = 65536
    """Rows in a part."""
    ann: bool = True
    """Make the index of the table."""
    folder: str = ""
    """Internal: the embeddings of this process, which it makes or stores."""
    make: int = 0
    """Internal: the number of rows to make."""


def main(config: Config) -> None:
    """Measure each number in a fresh process and print."""
    if config.make:
        make_folder(Path(config.folder), config.make, config.part)
        return
    if config.folder:
        print(json.dumps(measure(config)))
        return
    for rows in config.rows:
        with tempfile.TemporaryDirectory() as room:
            flags = ["--folder", f"{room}/embeddings", "--to", f"{config.to}{rows}"]
            flags += [] if config.ann else ["--no-ann"]
            _again(*flags, "--make", str(rows), "--part", str(config.part))
            result = json.loads(_again(*flags).splitlines()[-1])
        print(
            f"{rows:,} rows: {result['seconds']:.0f} s, peak {result['peak']:.0f} MB, "
            f"{result['before']:.0f} before",
            flush=True,
        )


def _again(*flags: str) -> str:
    """Run this file in a process of its own, whose peak no other's memory is in."""
    command = [sys.executable, __file__, *flags]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def make_folder(folder: Path, rows: int, part: int) -> None:
    """Embed so many generated images by one layer."""
    import torch
    from torch import nn

    from selfsup.config import EmbedConfig, ViewsConfig
    from selfsup.evaluate.embedding_folder import make_parts
    from selfsup.evaluate.model import EvaluatedModel

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE * 3, WIDTH))
    model = EvaluatedModel("one layer", encoder, ViewsConfig(size=SIDE))
    config = EmbedConfig(model="one layer", data="generated", batch=512, part=part, workers=0)
    make_parts(folder, model, Generated(rows), config, share=(0, 1))


def measure(config: Config) -> dict[str, float]:
    """Store the folder. Megabytes and seconds."""
    from selfsup.search.storing import store_folder

    before, began = peak(), time.monotonic()
    store_folder(Path(config.folder), config.to, ann=config.ann)
    return {"peak": peak(), "before": before, "seconds": time.monotonic() - began}


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
