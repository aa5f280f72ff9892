"""One folder with all that turns an image into an embedding: weights, preprocessing, threshold.

python tools/bundle.py runs/triplet bundle/ --onnx
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write what others need to use a run's encoder; `selfsup.load(FOLDER)` opens it."""

    run: Positional[str]
    """A finished run; what tools measured beside it goes along."""
    out: Positional[str]
    """The new folder."""
    onnx: bool = False
    """Also model.onnx, held against torch on several batch sizes; needs 'selfsup[onnx]'."""


def main(config: Config) -> None:
    """Write, and say what is in it."""
    from selfsup.encoders.bundle import load_bundle, write_bundle

    apart = write_bundle(Path(config.run), Path(config.out), onnx=config.onnx)
    found = load_bundle(config.out)
    threshold = "none (tools/verify.py finds one)" if found.threshold is None else found.threshold
    print(f"{config.out}: {found.encoder.dim} dimensions, threshold {threshold}")
    if apart:
        told = ", ".join(f"{images}: {apart[images]:.1e}" for images in apart)
        print(f"model.onnx differs from torch by at most, for batches of {told}")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
