"""Write packs (see pack.py) from any source, resuming where an earlier attempt stopped."""

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

from selfsup.core.disk import cannot_write, flush
from selfsup.core.errors import UserError, require
from selfsup.core.writer import only_writer
from selfsup.data.decode import BadImage
from selfsup.data.encode import Stored, Style, encode
from selfsup.data.pack import MAGIC, PAGE, Pack
from selfsup.data.sources import Source, all_unreadable, hash_names


def write_pack(
    source: Source,
    file: Path,
    style: Style,
    *,
    threads: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> int:
    """Write all images of `source` that can be read; return how many could not.

    The images go to FILE.partial and a line for each to FILE.journal; if both exist, the same
    command resumes. The pack appears under its name when it is whole.

    Raises:
        UserError: no image can be read, the file or an earlier attempt is of other images or
            another style, the disk is full, or another process writes the same pack.
    """
    with only_writer(file.parent, f".{file.name}.writer.json"):
        try:
            return _write(source, file, style, threads, progress)
        except OSError as error:
            raise cannot_write(file, error.errno or 0, error) from None


def _write(
    source: Source, file: Path, style: Style, threads: int, progress: Callable[[int], None]
) -> int:
    """Write a pack, or go on with one that was not finished."""
    partial, journal = (file.with_name(file.name + end) for end in (".partial", ".journal"))
    request = {"images": len(source), "sha256": _fingerprint(source), "style": list(style)}
    require(
        not file.exists() or _request_of(file) == request,
        f"{file} is there already, of other images or in another style: remove it, or choose "
        "another --out",
    )
    done = _resume(partial, journal, request)
    progress(len(done))
    with partial.open("r+b" if done else "wb") as out, journal.open("a") as lines:
        out.seek(done[-1]["end"] if done else PAGE)
        if not done:
            lines.write(json.dumps(request) + "\n")
            lines.flush()
        for i, stored in _encoded(source, style, len(done), threads):
            done.append(_line(out, i, stored))
            out.flush()  # before the line that records it
            lines.write(json.dumps(done[-1]) + "\n")
            lines.flush()
            progress(1)
        good = [line for line in done if "bad" not in line]
        if not good:
            raise UserError(all_unreadable(source))
        _finish(out, source, style, good, done=done, request=request)
    flush(partial)
    partial.replace(file)
    journal.unlink()
    return len(done) - len(good)


def _fingerprint(source: Source) -> str:
    """Hash all names, and the first of a few images that can be read."""
    digest = hash_names(source)
    for i in range(min(len(source), 10)):
        with contextlib.suppress(BadImage):
            digest.update(source.pixels(i).tobytes())
            break
    return digest.hexdigest()


def _line(out: BinaryIO, i: int, stored: Stored | str) -> dict[str, Any]:
    """Write an image, and return its line of the journal."""
    line: dict[str, Any] = {"i": i}
    if isinstance(stored, Stored):
        line |= {"start": out.tell(), "size": len(stored.data), "shape": stored.shape}
        line["sha256"] = hashlib.sha256(stored.data).hexdigest()
        out.write(stored.data)
    else:
        line["bad"] = stored
    return line | {"end": out.tell()}


def _request_of(file: Path) -> Any:
    """What a pack was asked to hold; None of a file that is no pack."""
    with contextlib.suppress(UserError):
        return Pack(file).contents.get("request")
    return None


def _resume(partial: Path, journal: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Read what an earlier attempt wrote, and truncate both files to it."""
    if not (partial.exists() and journal.exists()):
        journal.unlink(missing_ok=True)
        return []
    lines = []
    for text in journal.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last line may be incomplete
            lines.append(json.loads(text))
    if not lines:  # stopped before its first line
        journal.unlink()
        return []
    if lines[0] != request:
        raise UserError(f"{partial} is of another attempt ({lines[0]}); remove it and {journal}")
    size = partial.stat().st_size
    done = [line for line in lines[1:] if line["end"] <= size]
    if not done:
        journal.unlink()
        return []
    os.truncate(partial, done[-1]["end"])
    journal.write_text("".join(json.dumps(line) + "\n" for line in [request, *done]))
    return done


def _encoded(
    source: Source, style: Style, start: int, threads: int
) -> Iterator[tuple[int, Stored | str]]:
    """Encode images from `start` on in order, some ahead; a text is why one cannot be read."""

    def encode_image(i: int) -> Stored | str:
        try:
            return encode(source.pixels(i), style)
        except (BadImage, OSError) as error:  # JPEG cannot hold a strip of 1 x 70,000 pixels
            return str(error)

    with ThreadPoolExecutor(threads) as pool:
        places = iter(range(start, len(source)))
        ahead = [(i, pool.submit(encode_image, i)) for i in islice(places, 4 * threads)]
        while ahead:
            i, ready = ahead.pop(0)
            yield i, ready.result()
            ahead += [(j, pool.submit(encode_image, j)) for j in islice(places, 1)]


class _Index:
    """Arrays of the index as they are written, each at the start of a page."""

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
    *,
    done: list[dict[str, Any]],
    request: dict[str, Any],
) -> None:
    """Write the index, the contents and, last, the first page."""
    shapes = {tuple(line["shape"]) for line in good}
    (channels,) = {shape[2] for shape in shapes}
    uniform = style.format == "raw" and len(shapes) == 1
    index = _write_index(out, source, good)
    if uniform:
        index.arrays["images"] = ["|u1", [len(good), *good[0]["shape"]], PAGE]
    contents = {
        "request": request,
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
    """Write the facts of each image."""
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
    """List the names of the images whose bytes have changed since they were written.

    Raises:
        UserError: it is not a pack, or not whole, or its index has changed.
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
