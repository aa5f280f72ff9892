"""Tar shards as webdataset writes them, indexed once and then read at any position.

The names of a sample's files are equal up to the first dot: `0001.jpg`, `0001.cls`. The label is
the text of `.cls` or `.txt`, or `label` in `.json`, whose other words become columns.
"""

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from selfsup.core.errors import UserError, require
from selfsup.data.decode import FILE_CHANNELS, SUFFIXES, BadImage
from selfsup.data.sources import ImageSource, Source
from selfsup.data.tables import column_labels, encode_labels

VERSION = 1


def tars(path: Path, *, labels: str, channels: int) -> Source:
    """Open one .tar, or all of a folder in the order of their names."""
    require(channels in FILE_CHANNELS, f"{path}: files have 1, 3 or 4 channels, not {channels}")
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    samples = [sample | {"file": i} for i, file in enumerate(files) for sample in _index(file)]
    if not samples:
        raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    numbers: Tensor | None = None
    classes: list[str] = []
    names = [sample["name"] for sample in samples]
    common = set.intersection(*(set(sample["columns"]) for sample in samples))
    columns = {name: [sample["columns"][name] for sample in samples] for name in sorted(common)}
    if labels != "label":
        numbers, classes = column_labels(path, columns, labels)
    elif all("label" in sample for sample in samples):
        numbers, classes = encode_labels([sample["label"] for sample in samples])
    load = _Loader(files, samples)
    return ImageSource(load, names, numbers, classes, channels=channels, columns=columns)


class _Loader:
    """Bytes of one image of a shard.

    The file is opened for each image: that takes a few microseconds, and no file stays open.
    """

    def __init__(self, files: list[Path], samples: list[dict[str, Any]]) -> None:
        self.files = files
        self.places = np.array([[s["file"], s["start"], s["size"]] for s in samples], np.int64)

    def __call__(self, position: int) -> bytes:
        file, start, size = self.places[position].tolist()
        try:
            with self.files[file].open("rb", buffering=0) as opened:
                return os.pread(opened.fileno(), size, start)
        except OSError as error:
            raise BadImage(f"{type(error).__name__}: {error.strerror}") from None


def _index(file: Path) -> list[dict[str, Any]]:
    """Find each sample's image; the index is stored beside the shard, if the folder is writable."""
    index_file = file.with_name(file.name + ".index.json")
    status = file.stat()
    state = [VERSION, status.st_size, status.st_mtime_ns]
    try:
        index = json.loads(index_file.read_text())
        if index["state"] == state:
            samples: list[dict[str, Any]] = index["samples"]
            return samples
    except (OSError, ValueError, KeyError, TypeError):
        pass
    samples = _read(file)
    try:
        temporary = index_file.with_name(f"{index_file.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"state": state, "samples": samples}))
        temporary.replace(index_file)
    except OSError:  # a read-only folder: indexed again next time
        pass
    return samples


def _read(file: Path) -> list[dict[str, Any]]:
    """Read all headers and labels of a shard."""
    samples: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, base = os.path.split(member.name)
                key, _, kind = base.partition(".")
                sample = samples.setdefault(os.path.join(folder, key), {"columns": {}})
                kind = f".{kind.lower()}"
                if kind.endswith(SUFFIXES):
                    place = {"start": member.offset_data, "size": member.size}
                    plain = kind in SUFFIXES  # 0001.jpg, not 0001.mask.png
                    if "name" not in sample or (plain and not sample["plain"]):
                        sample |= {"name": member.name, "plain": plain, **place}
                elif kind in (".cls", ".txt", ".json"):
                    opened = tar.extractfile(member)
                    assert opened is not None
                    sample |= _words(kind, opened.read(1 << 20), sample["columns"])
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    return [sample for sample in samples.values() if "name" in sample]


def _words(kind: str, data: bytes, columns: dict[str, str]) -> dict[str, str]:
    """Read the label from a file of the sample; other words go into `columns`."""
    text = data.decode("utf-8", "replace").strip()
    if kind != ".json":
        return {"label": text}
    table = json.loads(text)
    if not isinstance(table, dict):
        return {}
    words = {str(name): str(word) for name, word in table.items() if not isinstance(word, list)}
    label = words.pop("label", None)
    columns.update(words)
    return {} if label is None else {"label": label}
