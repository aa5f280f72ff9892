"""Time of two SimCLR views of an image beside lightly, kornia and albumentationsx.

    pip install -e '.[bench]' && python tools/bench/bench_views.py

One thread and CPU time, the same pipeline for all: resized crop (bilinear), flip, colour changes at
half strength, grey, blur, ImageNet's normalisation. All candidates of a table run in one process in
shuffled rounds; a ratio is the median of the rounds' ratios, with their smallest and largest.
`ours, without numba` is the form in torch that a platform without numba has.
"""

import io
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from timing import Work, machine, paired, ratio

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError

SMALL, LARGE = 512, 24  # images of a call: of 32 pixels, and of photographs
KORNIA = (
    "{RandomMotionBlur: {kernel_size: 3, angle: 35.0, direction: 0.5, p: 0.3}, "
    "RandomJPEG: {jpeg_quality: [30, 90], p: 0.2}}"
)
"""The example of augment/README.md."""
PEERS = ("lightly", "kornia", "albumentationsx")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time of two SimCLR views of an image beside lightly, kornia and albumentationsx."""

    rows: str = ""
    """Only tables whose name holds this text."""
    rounds: int = 9
    """Of each table, after one that is not counted."""


def views_of(size: int) -> Any:
    """The pipeline of all sides."""
    from selfsup.config import ViewsConfig

    return ViewsConfig(size=size, strength=0.5, interpolation="bilinear")


def ours(source: Any, size: int, n: int, *, by_numba: bool = True, kornia: str = "") -> Work:
    """Draw, read, colour: what a training step does."""
    from selfsup.augment.apply import apply
    from selfsup.augment.boxes import CropSpec
    from selfsup.augment.draws import draw
    from selfsup.core import compiled

    views = replace(views_of(size), kornia=kornia)

    def work() -> None:
        with patch.object(compiled, "available", lambda: by_numba):
            (draws,) = draw(views, n, seed=0, step=0)
            cut = CropSpec(draws.boxes, size, views.resampling)
            apply(source.crops(range(n), cut).images[0], draws, views)

    return work


def lightly(images: Sequence[Any], size: int) -> Work:
    """Its transform, image by image; `images` gives PIL's."""
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=size, cj_strength=0.5)
    return lambda: [transform(image()) for image in images]


def kornia(images: Any, size: int) -> Work:
    """Its modules on a batch, each image by its own draws, twice."""
    import kornia.augmentation as ka
    import torch

    side = size // 10 | 1
    both = ka.AugmentationSequential(
        ka.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        ka.RandomHorizontalFlip(),
        ka.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        ka.RandomGrayscale(p=0.2),
        ka.RandomGaussianBlur((side, side), (0.1, 2.0), p=0.5),
        ka.Normalize(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])),
    )
    levels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return lambda: [both(levels.float() / 255) for _ in range(2)]


def albumentationsx(images: Sequence[Any], size: int) -> Work:
    """Its pipeline, image by image; `images` gives arrays."""
    import albumentations as al
    import cv2

    cv2.setNumThreads(0)
    side = max(3, size // 10 | 1)
    pipeline = al.Compose(
        [
            al.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
            al.HorizontalFlip(p=0.5),
            al.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            al.ToGray(p=0.2),
            al.GaussianBlur((side, side), (0.1, 2.0), p=0.5),
            al.Normalize(),
            al.ToTensorV2(),
        ]
    )

    def work() -> None:
        for image in images:
            levels = image()
            for _ in range(2):
                pipeline(image=levels)

    return work


def small() -> dict[str, tuple[int, Work]]:
    """32 pixels, from uint8 in memory."""
    import numpy as np
    from PIL import Image

    from selfsup.data.sources import ArraySource

    images = photographs(SMALL, 32, 32)
    source, few = ArraySource(images, None, []), images[: SMALL // 8]
    return {
        "ours": (SMALL, ours(source, 32, SMALL)),
        "ours, without numba": (SMALL, ours(source, 32, SMALL, by_numba=False)),
        "ours, with two of kornia's": (SMALL, ours(source, 32, SMALL, kornia=KORNIA)),
        "lightly": (len(few), lightly([lambda x=x: Image.fromarray(x) for x in few], 32)),
        "kornia": (SMALL, kornia(images, 32)),
        "albumentationsx": (len(few), albumentationsx([lambda x=x: np.array(x) for x in few], 32)),
    }


def large(folder: Path) -> dict[str, tuple[int, Work]]:
    """224 pixels, from JPEG files of 500 x 400, and from packs of them."""
    import cv2
    import numpy as np
    from PIL import Image

    from selfsup.data.encode import Style
    from selfsup.data.open import open_source
    from selfsup.data.pack_writer import write_pack

    files = []
    for i, image in enumerate(photographs(LARGE, 400, 500)):
        files.append(folder / f"{i:03}.jpg")
        Image.fromarray(image).save(files[-1], quality=90)
    source = open_source(str(folder))
    packs = {}
    for style in (Style("jpeg", 256, 90), Style("raw", 256, 90)):
        file = folder.parent / f"{style.format}.pack"
        write_pack(source, file, style)
        packs[style.format] = open_source(str(file))

    def pillow(file: Path) -> Any:
        return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")

    def opencv(file: Path) -> Any:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    few = files[: LARGE // 2]
    return {
        "ours": (LARGE, ours(source, 224, LARGE)),
        "ours, without numba": (LARGE, ours(source, 224, LARGE, by_numba=False)),
        "ours, 256-px q90 pack": (LARGE, ours(packs["jpeg"], 224, LARGE)),
        "ours, 256-px raw pack": (LARGE, ours(packs["raw"], 224, LARGE)),
        "ours, with two of kornia's": (LARGE, ours(source, 224, LARGE, kornia=KORNIA)),
        "lightly": (len(few), lightly([lambda f=f: pillow(f) for f in few], 224)),
        "albumentationsx": (LARGE, albumentationsx([lambda f=f: opencv(f) for f in files], 224)),
    }


def photographs(n: int, height: int, width: int) -> Any:
    """Crop two photographs at random: [n, height, width, 3]."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    whole = [Image.fromarray(image) for image in load_sample_images().images]
    draw = np.random.default_rng(0)
    crops = []
    for i in range(n):
        left, top = draw.integers(0, 100, 2).tolist()
        box = left, top, left + 500, top + 320
        crop = whole[i % 2].resize((width, height), Image.Resampling.BICUBIC, box=box)
        crops.append(np.array(crop))
    return np.stack(crops)


def main(config: Config) -> None:
    """Print a table for each size."""
    import tempfile

    import torch

    try:
        import albumentations  # noqa: F401
        import lightly.transforms  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}: pip install 'selfsup[bench]'") from None
    from selfsup.core.distributed import keep_freed_memory

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        files.mkdir()
        tables: dict[str, Callable[[], dict[str, tuple[int, Work]]]] = {
            "32 px from uint8": small,
            "224 px from 500 x 400": lambda: large(files),
        }
        for name, sides in tables.items():
            if config.rows in name:
                show(name, sides(), config.rounds)


def show(name: str, sides: dict[str, tuple[int, Work]], rounds: int) -> None:
    """Images a second of each side, and how many times faster than each peer it is."""
    spent = paired({side: work for side, (_, work) in sides.items()}, rounds, time.process_time)
    peers = [peer for peer in PEERS if peer in sides]
    print(f"\n{name:28s}{'images/s':>9s}" + "".join(f"{'x ' + peer:>22s}" for peer in peers))
    for side, (images, _) in sides.items():
        rate = images / statistics.median(spent[side])
        cells = [
            str(ratio(spent[side], spent[peer], per=sides[peer][0] / images)) for peer in peers
        ]
        print(f"{side:28s}{rate:9,.0f}" + "".join(f"{cell:>22s}" for cell in cells), flush=True)


if __name__ == "__main__":
    launch(main, Config)
