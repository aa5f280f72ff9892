"""One folder with all that turns an image into an embedding: weights, preprocessing, threshold.

python tools/bundle.py runs/triplet bundle/ --onnx
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from selfsup.core.cli import run as launch
from selfsup.core.live import print_sentence


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write what others need to use a run's encoder; `selfsup.load(FOLDER)` opens it."""

    run: Positional[str]
    """A finished run; results of evaluations in its folder go along."""
    out: Positional[str]
    """The new folder."""
    onnx: bool = False
    """Also model.onnx, compared with torch on several batch sizes; needs 'selfsup[onnx]'."""


def main(config: Config) -> None:
    """Write the bundle and describe it."""
    from selfsup.encoders.bundle import load_bundle, write_bundle

    differences = write_bundle(Path(config.run), Path(config.out), onnx=config.onnx)
    bundle = load_bundle(config.out)
    value = bundle.threshold
    threshold = "none (selfsup verify measures one)" if value is None else f"{value:.4f} of a pair"
    print_sentence(f"{config.out}: {bundle.encoder.dim} dimensions, threshold {threshold}")
    if differences:
        listed = ", ".join(f"{images}: {largest:.1e}" for images, largest in differences.items())
        print_sentence(f"model.onnx differs from torch by at most, for batches of {listed}")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
