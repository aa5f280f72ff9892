"""Opening a source from what the user typed: a folder, a manifest, arrays or a torchvision name."""

import csv
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.data.decode import SUFFIXES, BadImage, upright_rgb
from selfsup.data.sources import ArraySource, ImageSource, Source, encode_labels, file_source
from selfsup.errors import UserError, did_you_mean

DOWNLOADS = Path("data")  # where `cifar10` is kept


def open_source(data: str, *, split: str = "") -> Source:
    """The images that `data` names.

    Args:
        data: a folder (labels from its sub-folders), a .csv, .jsonl or .parquet manifest (columns
            path, and label and split if wanted), an .npz (images uint8 [n, h, w, c], labels),
            `cifar10` (fetched by torchvision once), or torchvision:NAME:FOLDER on disk.
        split: of a manifest, the rows to take; of a torchvision data set, train or test.

    Raises:
        UserError: nothing is there, or it holds no images, or not in the form said above.
    """
    if data == "cifar10":
        return _torchvision("CIFAR10", DOWNLOADS, split, download=True)
    if data.startswith("torchvision:"):
        _, name, folder = [*data.split(":", 2), "", ""][:3]
        return _torchvision(name, Path(folder), split, download=False)
    path = Path(data)
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path} does not exist{did_you_mean(path.name, beside)}")
    suffix = path.suffix.lower()
    if split and (path.is_dir() or suffix == ".npz"):
        raise UserError(f"{path} has no splits; a split is a manifest's column")
    if path.is_dir():
        return _folder(path)
    if suffix == ".npz":
        return _arrays(path)
    if suffix in (".csv", ".jsonl", ".parquet"):
        return _manifest(path, split)
    raise UserError(f"{path} is no folder, .npz, .csv, .jsonl or .parquet")


def _folder(root: Path) -> Source:
    """Every image below `root`, sorted by the bytes of its path; labels if all are in folders."""
    found = []
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to where we were
            inner.clear()
            continue
        seen.add(real)
        found += [
            os.path.relpath(os.path.join(folder, name), root)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found:
        raise UserError(f"{root} holds no images ({', '.join(SUFFIXES)})")
    paths = sorted((Path(p).as_posix() for p in found), key=os.fsencode)
    labels: Tensor | None = None
    classes: list[str] = []
    if all("/" in path for path in paths):
        labels, classes = encode_labels([path.split("/", 1)[0] for path in paths])
    return file_source(root, paths, labels, classes)


def _manifest(file: Path, split: str) -> Source:
    """A table with a path on each row, relative to the manifest's folder."""
    rows = _rows(file)
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not row.get("path"):
            told = ", ".join(row) if isinstance(row, dict) else "none"
            raise UserError(f"{file} has no column path (its columns: {told}) in row {i + 1}")
    if not rows:
        raise UserError(f"{file} has no rows")
    if split:
        known = sorted({str(row.get("split", "")) for row in rows})
        rows = [row for row in rows if str(row.get("split", "")) == split]
        if not rows:
            raise UserError(f"{file} has no rows with split {split!r}; it has {', '.join(known)}")
    labels: Tensor | None = None
    classes: list[str] = []
    if all(row.get("label") not in (None, "") for row in rows):
        labels, classes = encode_labels([str(row["label"]) for row in rows])
    return file_source(file.parent, [str(row["path"]) for row in rows], labels, classes)


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix.lower() == ".parquet":
            try:
                import pyarrow.parquet
            except ImportError:
                raise UserError(f"{file} needs pyarrow: pip install 'selfsup[data]'") from None
            table: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
            return table
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix.lower() == ".csv":
                return list(csv.DictReader(lines))
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from None


def _arrays(file: Path) -> Source:
    """An .npz with `images` and perhaps `labels`, `classes` (names)."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {
                name: arrays[name] for name in ("images", "labels", "classes") if name in arrays
            }
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    images = found.get("images")
    if images is not None and images.ndim == 3:
        images = images[..., None]
    if images is None or images.ndim != 4 or images.dtype != np.uint8:
        told = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise UserError(f"{file} must hold images as uint8 [n, h, w, c]; it has {told}")
    if images.shape[-1] not in (1, 3, 4) or len(images) == 0:
        raise UserError(f"{file} must hold images of 1, 3 or 4 channels, not {list(images.shape)}")
    labels = found.get("labels")
    if labels is None:
        return ArraySource(images, None, [])
    if labels.shape != (len(images),):
        raise UserError(f"{file} has {len(images)} images but labels of shape {list(labels.shape)}")
    return ArraySource(images, *_named(labels, found.get("classes")))


def _named(labels: np.ndarray, names: np.ndarray | None) -> tuple[Tensor, list[str]]:
    """Labels as 0, 1, 2... and what they are called."""
    values, index = np.unique(labels, return_inverse=True)
    called = values if names is None or names.ndim != 1 else names[values]
    return torch.from_numpy(index.astype(np.int64)), [str(name) for name in called]


def _torchvision(name: str, folder: Path, split: str, *, download: bool) -> Source:
    """A torchvision data set that is on disk (or may be fetched, where the user asked for it)."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name, None)
    if kind is None:
        near = did_you_mean(name, torchvision.datasets.__all__)
        raise UserError(f"torchvision has no data set {name!r}{near}")
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
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        return ArraySource(pixels, *_named(np.asarray(targets), np.asarray(images.classes)))
    return _by_item(images, name)


def _by_item(images: Any, name: str) -> Source:
    labels = [images[i][1] for i in range(len(images))]

    def load(position: int) -> Any:
        try:
            return upright_rgb(images[position][0])
        except Exception as error:
            raise BadImage(f"{type(error).__name__}: {error}") from None

    names: Sequence[str] = [f"{name} {i}" for i in range(len(images))]
    return ImageSource(load, names, *_named(np.asarray(labels), None))
