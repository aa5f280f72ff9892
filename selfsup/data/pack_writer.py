"""Writing packs (see pack.py), from any source, going on where an earlier try stopped."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from selfsup.core.errors import UserError
from selfsup.data.decode import BadImage
from selfsup.data.encode import Stored, Style, encode
from selfsup.data.pack import MAGIC, PAGE, Pack
from selfsup.data.sources import Source


def write_pack(
    source: Source,
    file: Path,
    style: Style,
    *,
    threads: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> int:
    """Write all images of `source` that can be read; how many could not.

    The images go to FILE.partial and a line each to FILE.journal; with both there, the same command
    goes on. The pack appears under its name when it is whole.

    Raises:
        UserError: no image can be read, or the earlier try was of other images or another style.
    """
    partial, journal = (file.with_name(file.name + end) for end in (".partial", ".journal"))
    asked = {"images": len(source), "sha256": _fingerprint(source), "style": list(style)}
    done = _resume(partial, journal, asked)
    progress(len(done))
    file.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("r+b" if done else "wb") as out, journal.open("a") as lines:
        out.seek(done[-1]["end"] if done else PAGE)
        if not done:
            lines.write(json.dumps(asked) + "\n")
            lines.flush()
        for i, stored in _encoded(source, style, len(done), threads):
            done.append(_line(out, i, stored))
            out.flush()  # before the line that says so
            lines.write(json.dumps(done[-1]) + "\n")
            lines.flush()
            progress(1)
        good = [line for line in done if "bad" not in line]
        if not good:
            raise UserError(f"none of the {len(source)} images can be read")
        _finish(out, source, style, good, done)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
    journal.unlink()
    return len(done) - len(good)


def _fingerprint(source: Source) -> str:
    """Of all names, and of the first image that can be read among a few."""
    found = hashlib.sha256()
    for i in range(len(source)):
        found.update(source.name(i).encode("utf-8", "surrogateescape") + b"\0")
    for i in range(min(len(source), 10)):
        with contextlib.suppress(BadImage):
            found.update(source.pixels(i).tobytes())
            break
    return found.hexdigest()


def _line(out: BinaryIO, i: int, stored: Stored | str) -> dict[str, Any]:
    """Write an image; what the journal keeps of it."""
    line: dict[str, Any] = {"i": i}
    if isinstance(stored, Stored):
        line |= {"start": out.tell(), "size": len(stored.data), "shape": stored.shape}
        line["sha256"] = hashlib.sha256(stored.data).hexdigest()
        out.write(stored.data)
    else:
        line["bad"] = stored
    return line | {"end": out.tell()}


def _resume(partial: Path, journal: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier try has written, and the files cut to it."""
    if not (partial.exists() and journal.exists()):
        journal.unlink(missing_ok=True)
        return []
    lines = []
    for text in journal.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last may be half
            lines.append(json.loads(text))
    if not lines:  # stopped before anything was written down
        journal.unlink()
        return []
    if lines[0] != asked:
        raise UserError(f"{partial} is of another try, with {lines[0]}; remove it and {journal}")
    size = partial.stat().st_size
    done = [line for line in lines[1:] if line["end"] <= size]
    if not done:
        journal.unlink()
        return []
    os.truncate(partial, done[-1]["end"])
    journal.write_text("".join(json.dumps(line) + "\n" for line in [asked, *done]))
    return done


def _encoded(
    source: Source, style: Style, start: int, threads: int
) -> Iterator[tuple[int, Stored | str]]:
    """Images from `start` on in their order, some made ready ahead; or why there is none."""

    def one(i: int) -> Stored | str:
        try:
            return encode(source.pixels(i), style)
        except (BadImage, OSError) as error:  # a strip of 1 x 70,000 pixels is no JPEG
            return str(error)

    with ThreadPoolExecutor(threads) as pool:
        places = iter(range(start, len(source)))
        ahead = [(i, pool.submit(one, i)) for i in islice(places, 4 * threads)]
        while ahead:
            i, ready = ahead.pop(0)
            yield i, ready.result()
            ahead += [(j, pool.submit(one, j)) for j in islice(places, 1)]


class _Index:
    """Arrays of the index as they are written, each from a page on."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.arrays: dict[str, Any] = {}
        """Type, shape and place of each."""
        self.digest = hashlib.sha256()

    def put(self, name: str, array: np.ndarray) -> None:
        """Write an array."""
        self.out.seek(-(-self.out.tell() // PAGE) * PAGE)
        self.arrays[name] = [array.dtype.str, list(array.shape), self.out.tell()]
        self.out.write(array.tobytes())
        self.digest.update(array.tobytes())

    def put_texts(self, name: str, words: Sequence[str]) -> None:
        """Write words one after the other, and where each ends."""
        coded = [word.encode("utf-8", "surrogateescape") for word in words]
        self.put(f"{name} text", np.frombuffer(b"".join(coded), np.uint8))
        self.put(f"{name} ends", np.cumsum([len(word) for word in coded], dtype=np.int64))


def _finish(
    out: BinaryIO,
    source: Source,
    style: Style,
    good: list[dict[str, Any]],
    done: list[dict[str, Any]],
) -> None:
    """Write the index, the contents and, last, the first page."""
    shapes = {tuple(line["shape"]) for line in good}
    (channels, *others) = {shape[2] for shape in shapes}
    assert not others, shapes
    uniform = style.format == "raw" and len(shapes) == 1
    index = _write_index(out, source, good)
    if uniform:
        index.arrays["images"] = ["|u1", [len(good), *good[0]["shape"]], PAGE]
    contents = {
        "images": len(good),
        "format": style.format,
        "side": style.side,
        "channels": channels,
        "uniform": uniform,
        "classes": list(source.classes),
        "columns": list(source.columns),
        "bad": [(source.name(line["i"]), line["bad"]) for line in done if "bad" in line],
        "arrays": index.arrays,
    }
    text = json.dumps(contents).encode()
    start = out.tell()
    out.write(text)
    index.digest.update(text)
    where: dict[str, Any] = {"contents": start, "bytes": len(text), "whole": out.tell()}
    where["index"] = index.digest.hexdigest()
    out.seek(0)
    out.write((MAGIC + json.dumps(where).encode() + b"\n").ljust(PAGE, b"\0"))


def _write_index(out: BinaryIO, source: Source, good: list[dict[str, Any]]) -> _Index:
    """What is known of each image."""
    places = [line["i"] for line in good]
    index = _Index(out)
    index.put("starts", np.array([line["start"] for line in good], np.int64))
    index.put("sizes", np.array([line["size"] for line in good], np.int64))
    index.put("shapes", np.array([line["shape"][:2] for line in good], np.int32))
    digests = b"".join(bytes.fromhex(line["sha256"]) for line in good)
    index.put("sha256", np.frombuffer(digests, np.uint8).reshape(-1, 32))
    index.put_texts("name", [source.name(i) for i in places])
    for name, words in source.columns.items():
        index.put_texts(f"column {name}", [words[i] for i in places])
    if source.labels is not None:
        index.put("labels", source.labels[torch.tensor(places)].numpy())
    return index


def check_pack(file: Path) -> list[str]:
    """Names of the images whose bytes are not what was written.

    Raises:
        UserError: it is no pack, or not whole, or its index is not what was written.
    """
    pack = Pack(file)
    index = hashlib.sha256()
    for name in pack.contents["arrays"]:
        index.update(b"" if name == "images" else pack.array(name).tobytes())
    index.update(pack.text)
    if index.hexdigest() != pack.index:
        raise UserError(f"the index of {file} has changed; pack it again")
    names, digests = pack.texts("name"), pack.array("sha256")
    return [
        names[i]
        for i in range(len(pack))
        if hashlib.sha256(pack.stored(i).tobytes()).digest() != digests[i].tobytes()
    ]
