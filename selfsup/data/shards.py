"""Tar shards as webdataset writes them, indexed once and then read at any position.

The names of a sample's files are equal up to the first dot: `0001.jpg`, `0001.cls`. The label is
the text of `.cls`, or `label` in `.json`, whose other words become columns; `.txt` is the label
where no sample has either, and a column (a caption) otherwise. `tar_members.py` decides what is a
sample.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.core.errors import UnusableError, UserError, require
from selfsup.core.json_files import read_json
from selfsup.core.notices import notice
from selfsup.data.decode import FILE_CHANNELS, SUFFIXES, BadImage
from selfsup.data.folders import announce_passed_over, folder_labels, folder_level, list_files
from selfsup.data.labels import Encoded, column_labels, encode_words
from selfsup.data.remote import RemoteFile, read_ranges
from selfsup.data.sources import ImageSource, Source
from selfsup.data.tar_members import Shard, read_shard

VERSION = 3
NOWHERE = BadImage("a link to a file that is not in the shard")


def tars(path: Path, *, labels: str, channels: int) -> Source:
    """Open one .tar, or all of a folder in the order of their names."""
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if path.is_dir():
        _announce_lists(path)
    shards = [_index(file) for file in files]
    return from_shards(path, files, shards, labels=labels, channels=channels)


def from_shards(
    path: object,
    files: Sequence[Path | RemoteFile],
    shards: Sequence[Shard],
    *,
    labels: str,
    channels: int,
) -> Source:
    """Make a source of shards whose members are known; `path` names them all in a message."""
    require(channels in FILE_CHANNELS, f"{path}: files have 1, 3 or 4 channels, not {channels}")
    for file, shard in zip(files, shards, strict=True):
        for note in shard["notes"]:
            notice(f"{file}: {note}")
    samples = [s | {"file": i} for i, shard in enumerate(shards) for s in shard["samples"]]
    if not samples:
        raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    names = [sample["name"] for sample in samples]
    has_class = any("cls" in sample or "label" in sample for sample in samples)
    if has_class:
        for sample in samples:
            if "txt" in sample:
                sample["columns"] = sample["columns"] | {"txt": sample["txt"]}
    common = set.intersection(*(set(sample["columns"]) for sample in samples))
    columns = {name: [sample["columns"][name] for sample in samples] for name in sorted(common)}
    encoded: Encoded = (None, [])
    if labels.startswith("folder:"):
        encoded = folder_labels(path, names, folder_level(path, labels))
    elif labels not in ("label", ""):
        encoded = column_labels(path, columns, labels)
    elif labels:
        encoded = _class_labels(path, samples, has_class)
    load = _Loader(files, samples)
    many = load.many if any(isinstance(file, RemoteFile) for file in files) else None
    options: dict[str, Any] = {"channels": channels, "columns": columns, "load_many": many}
    return ImageSource(load, names, *encoded, **options)


def _announce_lists(path: Path) -> None:
    """Print what lies beside shards and is not read, such as lists and statistics."""
    listing = list_files(path)
    others = [
        name
        for name in listing.others
        if not name.endswith(".index.json") and ("/" in name or not name.endswith(".tar"))
    ]
    announce_passed_over(path, listing._replace(others=others))


def _class_labels(path: object, samples: list[dict[str, Any]], has_class: bool) -> Encoded:
    """Number the samples' labels, by .cls, else by `label` in .json, else by .txt."""
    if has_class:
        values = [sample.get("cls", sample.get("label")) for sample in samples]
    else:
        values = [sample.get("txt") for sample in samples]
    return (None, []) if all(value is None for value in values) else encode_words(path, values)


class _Loader:
    """Bytes of one image of a shard.

    The file is opened for each image: that takes a few microseconds, and no file stays open.
    """

    def __init__(
        self, files: Sequence[Path | RemoteFile], samples: Sequence[dict[str, Any]]
    ) -> None:
        self.files = files
        self.places = np.array([[s["file"], s["start"], s["size"]] for s in samples], np.int64)

    def __call__(self, position: int) -> bytes:
        file, start, size = self.places[position].tolist()
        if size < 0:
            raise NOWHERE
        place = self.files[file]
        if isinstance(place, RemoteFile):
            return place.read(start, size)
        try:
            with place.open("rb", buffering=0) as opened:
                return os.pread(opened.fileno(), size, start)
        except OSError as error:
            raise BadImage(f"{type(error).__name__}: {error.strerror}") from None

    def many(self, positions: Sequence[int]) -> list[bytes | BadImage]:
        """Read several images at URLs at once; of one that cannot be read the reason."""
        ranges = []
        for position in positions:
            file, start, size = self.places[position].tolist()
            place = self.files[file]
            assert isinstance(place, RemoteFile)
            ranges.append((place, start, max(0, size)))
        read = read_ranges(ranges)
        return [
            NOWHERE if self.places[position][2] < 0 else data
            for position, data in zip(positions, read, strict=True)
        ]


def _index(file: Path) -> Shard:
    """Find each sample's image; the index is stored beside the shard, if the folder is writable."""
    index_file = file.with_name(file.name + ".index.json")
    status = file.stat()
    state = [VERSION, status.st_size, status.st_mtime_ns]
    try:
        index = read_json(index_file)
        if index["state"] == state:
            stored: Shard = index["shard"]
            return stored
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        with file.open("rb") as stream:
            shard = read_shard(stream, str(file))
    except OSError as error:
        raise UnusableError(f"cannot read {file}: {error}") from None
    try:
        temporary = index_file.with_name(f"{index_file.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"state": state, "shard": shard}))
        temporary.replace(index_file)
    except OSError:  # a read-only folder: indexed again next time
        pass
    return shard
