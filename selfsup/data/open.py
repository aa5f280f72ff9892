"""Open a source by its name on the command line."""

import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

from selfsup.config import CacheConfig, TrainConfig
from selfsup.core.errors import UnusableError, UserError, did_you_mean, require
from selfsup.core.paths import exists, is_url, urls_in
from selfsup.data.arrays import npy, npz
from selfsup.data.decode import FILE_CHANNELS
from selfsup.data.embedded import EmbeddedSource, embedded
from selfsup.data.embedding_parts import MANIFEST
from selfsup.data.folders import ARCHIVES, folder, list_files
from selfsup.data.hub import cifar10, hugging_face, torchvision
from selfsup.data.in_memory import InMemory, Opened
from selfsup.data.mixture import Mixture
from selfsup.data.open_remote import named, open_remote
from selfsup.data.pack import packed
from selfsup.data.python_objects import python_source
from selfsup.data.shards import tars
from selfsup.data.sources import Source
from selfsup.data.subset import Subset
from selfsup.data.tables import manifest

NO_CACHE = CacheConfig()
KINDS = ".npz, .npy, .csv, .jsonl, .parquet, .tar, .pack"


def open_source(
    data: str,
    *,
    split: str = "",
    labels: str = "label",
    channels: int = 3,
    cache: CacheConfig = NO_CACHE,
) -> Source:
    """Open the images that `data` names; `python_source` takes what a program holds.

    Args:
        data: a folder (of images, labels from its sub-folders; of tar shards or packs and no
            images; a Hugging Face data set; or of embeddings, which stands for its images), a .csv,
            .jsonl or .parquet manifest (columns path, and label, split and any others if wanted),
            an .npz (images uint8 or uint16 [n, h, w, c], labels) or .npy, a .tar of
            webdataset samples, a .pack, `cifar10` (fetched by torchvision once),
            torchvision:NAME:FOLDER on disk; a .pack or .tar, or a folder of them, at a URL
            (s3://, https://...); or several of these, "A + B", or "A * 3 + B * 1" with the weight
            of each in a batch.
        split: of a manifest or a Hugging Face data set, the rows to take; of a torchvision data
            set, train or test.
        labels: the column with the labels; of a folder or of tars "folder:1" for the names of the
            first folders, "folder:-1" for those of the last; empty to read none.
        channels: of the images; 3 reads all as RGB.
        cache: where images of URLs are kept.

    Raises:
        UserError: nothing is there, or it holds no images, or not in one of these forms.

    >>> import numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.savez(f"{folder}/x.npz", images=numpy.zeros((2, 8, 8, 3), numpy.uint8))
    ...     len(open_source(f"{folder}/x.npz"))
    2
    """
    if isinstance(data, Opened):
        return data.source  # type: ignore[no-any-return]
    if isinstance(data, InMemory):
        return python_source(data.images, data.labels, channels=channels)
    require(channels > 0, f"images have 1 channel or more, not {channels}")
    if " + " not in data or exists(data):
        return _open_single(data, split, labels, channels, cache)
    terms = [_parse_weight(term) for term in data.split(" + ")]
    sources = [_open_single(name, split, labels, channels, cache) for name, _ in terms]
    for (name, _), source in zip(terms, sources, strict=True):
        alone = f"{name} is a folder of embeddings, which cannot be mixed: give it alone"
        require(not isinstance(source, EmbeddedSource | Subset), alone)
    weights = [weight for _, weight in terms]
    if all(weight is None for weight in weights):
        return Mixture(sources, None)
    if None in weights:
        raise UserError(f"{data!r} gives a weight to some and not to all")
    return Mixture(sources, [float(weight) for weight in weights if weight is not None])


def training_source(config: TrainConfig) -> Source:
    """Open the images of `config.data`, with the channels of its views.

    Raises:
        UserError: the images cannot be opened.
    """
    return open_source(
        config.data,
        split=config.split,
        labels=config.labels,
        channels=config.views.channels,
        cache=config.cache,
    )


def require_named(data: str) -> None:
    """Refuse images at a URL that a file names: one from elsewhere must not make us fetch.

    Raises:
        UserError: the user has not named the URL in this process.
    """
    for url in urls_in(data):
        require(
            url in named,
            f"images at {url} are not fetched because a file names them: give --data {url}",
        )


def is_local(data: str) -> bool:
    """Whether `data` names files and folders that are there, and nothing that is fetched.

    Data sets of libraries, pipes and devices are neither.
    """
    names = [data] if exists(data) else [term.partition(" * ")[0] for term in data.split(" + ")]
    paths = [Path(name.strip()) for name in names]
    fetched = [name for name in names if name == "cifar10" or name.startswith("torchvision:")]
    if fetched or urls_in(data):
        return False
    return all(exists(str(p)) and (p.is_file() or p.is_dir()) for p in paths)


def _parse_weight(term: str) -> tuple[str, float | None]:
    """Split "A * 3" into the name and the weight, if there is one."""
    name, star, text = term.strip().rpartition(" * ")
    if not star:
        return term.strip(), None
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    finite = 0 < weight < math.inf
    require(finite, f"the weight of {name} must be a number above 0, not {text!r}")
    return name.strip(), weight


def _open_single(data: str, split: str, labels: str, channels: int, cache: CacheConfig) -> Source:
    require(bool(data.strip()), "a name of images is empty: give a folder or a file")
    if is_url(data):
        require(not split, f"{data} has no splits; a split is a manifest's column")
        return open_remote(data.strip(), labels=labels, channels=channels, cache=cache)
    if data == "cifar10" or data.startswith("torchvision:"):
        known = labels in ("label", "")
        require(known, f"{data} has no columns: its labels are its classes, not {labels!r}")
    if data == "cifar10":
        return cifar10(split, channels)
    if data.startswith("torchvision:"):
        _, name, root = [*data.split(":", 2), "", ""][:3]
        return torchvision(name, Path(root), split, channels)
    path = Path(data)
    if not exists(data):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path} does not exist{did_you_mean(path.name, siblings)}")
    mode = path.stat().st_mode
    require(
        stat.S_ISREG(mode) or stat.S_ISDIR(mode),
        f"{path} is a pipe or a device, not a file or a folder",
    )
    arrays: dict[str, Callable[..., Source]] = {".npz": npz, ".npy": npy}
    files: dict[str, Callable[..., Source]] = {".tar": tars, ".pack": packed}
    suffix = _kind(path)
    if suffix == "embeddings":
        return embedded(path, open_source, split=split, labels=labels, channels=channels)
    if suffix in (".csv", ".jsonl", ".parquet", "hugging face"):
        _needs_file_channels(data, channels)
        opened = hugging_face if suffix == "hugging face" else manifest
        return opened(path, split=split, labels=labels, channels=channels)
    if split:
        raise UserError(f"{path} has no splits; a split is a manifest's column")
    if suffix in arrays:
        return arrays[suffix](path, labels=labels, channels=channels)
    if suffix in files:
        return files[suffix](path, labels=labels, channels=channels)
    if suffix == "folder":
        _needs_file_channels(data, channels)
        return folder(path, labels=labels, channels=channels)
    cure = "; unpack it" if suffix in ARCHIVES else ""
    raise UserError(f"Cannot read {path}: expected a folder or one of {KINDS}{cure}")


def _kind(path: Path) -> str:
    """The suffix of a file; for a folder, the kind of what it holds."""
    if not path.is_dir():
        return path.suffix.lower()
    try:
        names = [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError as error:
        raise UnusableError(f"{path} cannot be listed: {error.strerror}") from None
    if {"dataset_info.json", "dataset_dict.json"} & set(names):
        return "hugging face"
    if MANIFEST in names:
        return "embeddings"
    for suffix in (".tar", ".pack"):
        # lists and statistics may lie beside shards, but a stray shard makes no folder of shards
        if any(name.endswith(suffix) for name in names) and not list_files(path).images:
            return suffix
    return "folder"


def _needs_file_channels(data: str, channels: int) -> None:
    require(
        channels in FILE_CHANNELS,
        f"{data}: files have 1, 3 or 4 channels, and --views.mean {channels}; "
        "other images come from arrays (.npz, .npy)",
    )
