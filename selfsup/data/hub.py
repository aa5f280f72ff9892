"""Data sets of other libraries on disk: Hugging Face's and torchvision's."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.data.arrays import check_images
from selfsup.data.decode import BadImage, read_bytes
from selfsup.data.labels import Encoded, encode_class_numbers, text_of
from selfsup.data.python_objects import python_source
from selfsup.data.sources import ArraySource, ImageSource, Source

DOWNLOADS = Path("data")  # where `cifar10` is stored


def hugging_face(path: Path, *, split: str, labels: str, channels: int) -> Source:
    """Open what `datasets` wrote by `save_to_disk`: the first column of images, and labels."""
    try:
        import datasets
    except ImportError:
        raise UserError(f"{path} needs datasets: pip install 'selfsup[data]'") from None
    try:
        data: Any = datasets.load_from_disk(str(path))
    except IndexError:  # what `datasets` raises for a data set without files
        raise UserError(f"{path} has no rows") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if isinstance(data, datasets.DatasetDict):
        splits = ", ".join(data)
        require(split in data, f"{path} has the splits {splits}, not {split!r}; give --split")
        data = data[split]
    elif split:
        raise UserError(f"{path} has no splits")
    kinds = data.features
    image = next((name for name in kinds if isinstance(kinds[name], datasets.Image)), None)
    if image is None:
        raise UserError(f"{path} has no column of images (its columns: {', '.join(kinds)})")
    rows = data.cast_column(image, datasets.Image(decode=False))
    names = [f"{path.name} {i}" for i in range(len(rows))]
    require(len(rows) > 0, f"{path} has no rows")
    encoded: Encoded = (None, [])
    if labels in kinds:
        encoded = encode_class_numbers(
            path, list(rows[labels]), getattr(kinds[labels], "names", None)
        )
    elif labels not in ("label", ""):
        raise UserError(f"{path} has no column {labels!r}; it has {', '.join(kinds)}")
    plain = [name for name in kinds if getattr(kinds[name], "dtype", "") in ("string", "int64")]
    columns = {name: [text_of(x) for x in rows[name]] for name in plain if name != labels}
    load = _Loader(rows, image)
    return ImageSource(load, names, *encoded, channels=channels, columns=columns)


class _Loader:
    """One image of a Hugging Face data set."""

    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column

    def __call__(self, position: int) -> bytes:
        cell = self.rows[position][self.column]
        if cell is None:
            raise BadImage("no image in this row")
        data: bytes | None = cell["bytes"]
        return read_bytes(Path(cell["path"])) if data is None else data


def cifar10(split: str, channels: int) -> Source:
    """Open CIFAR-10, the one data set that is downloaded if it is not there."""
    return torchvision("CIFAR10", DOWNLOADS, split, channels, download=True)


def torchvision(
    name: str, folder: Path, split: str, channels: int, *, download: bool = False
) -> Source:
    """Open a torchvision data set on disk; `download` fetches it first."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name, None)
    if kind is None:
        hint = did_you_mean(name, torchvision.datasets.__all__)
        raise UserError(f"torchvision has no data set {name!r}{hint}")
    if split not in ("", "train", "test"):
        raise UserError(f"torchvision's {name} has splits train and test, not {split!r}")
    try:
        images = kind(str(folder), train=split != "test", download=download)
    except TypeError:
        raise UserError(f"torchvision's {name} has no train and test split to choose") from None
    except (RuntimeError, OSError) as error:
        first = str(error).split("\n")[0]
        raise UserError(f"torchvision's {name} is not in {folder}: {first}") from None
    pixels, targets = getattr(images, "data", None), getattr(images, "targets", None)
    if isinstance(pixels, Tensor):
        pixels = pixels.numpy()
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and targets is not None:
        encoded = encode_class_numbers(folder, targets, images.classes)
        return ArraySource(check_images(folder, pixels, channels), *encoded, channels=channels)
    require(channels == 3, f"torchvision's {name} is read as RGB, not as {channels} channels")
    source = python_source(images)
    assert isinstance(source, ImageSource)
    source.names = [f"{name} {i}" for i in range(len(images))]
    return source
