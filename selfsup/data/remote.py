"""Files at a URL, read by ranges through fsspec: s3://, gs://, https://, memory:// and others.

A range that breaks off, comes too short, or is put off by a busy server is tried again, TRIES in
all; then one sentence says so. What is gone or shorter than it was is a bad image.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.config import CacheConfig
from selfsup.core.errors import require
from selfsup.core.secrets import without_passwords
from selfsup.data.decode import BadImage
from selfsup.data.disk_cache import DiskCache
from selfsup.data.remote_systems import (
    OPENING_WAITS,
    WAITS,
    facts_of,
    kind_of,
    place_of,
    refused,
    tried,
    unreachable,
    version_of,
)

TRIES = len(WAITS) + 1
PIECE = 8 << 20
"""Bytes of one request, at most; longer ranges are read as several at once."""
AT_ONCE = 64
"""Most requests of a process at a time."""


class RemoteFile:
    """A file at a URL: its size and version when it was opened, and its bytes by ranges."""

    def __init__(self, url: str, cache: CacheConfig) -> None:
        """Ask the server for size and version.

        Raises:
            UserError: there is no such file, or it may not be read, or not by ranges.
        """
        self.url = url.strip()
        self.cache = cache
        facts = tried(self, lambda: facts_of(self.url), OPENING_WAITS)
        require(facts.get("type") != "directory", f"{self} is a folder of the server, not a file")
        require(
            facts.get("size") is not None,
            f"{self} cannot be read by ranges: its server does not say how long it is",
        )
        self.size = int(facts["size"])
        self.version = version_of(facts)
        """What the server says that changes with the content: an ETag, else a time."""
        if self.url.lower().startswith(("http://", "https://")):
            self._require_ranges()

    def __str__(self) -> str:
        return without_passwords(self.url)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, wanted: slice) -> np.ndarray:
        """Read a range as uint8."""
        start, end, _ = wanted.indices(self.size)
        return np.frombuffer(self.read(start, max(0, end - start)), np.uint8)

    def read(self, start: int, size: int, *, keep: bool = True) -> bytes:
        """Read `size` bytes from `start` on; `keep` them in the cache.

        Raises:
            BadImage: the file is gone, or is shorter than that.
            UserError: the server cannot be reached, or refuses.
        """
        ends = range(start, start + size, PIECE)
        pieces = [(self, at, min(PIECE, start + size - at)) for at in ends]
        for piece in (read := read_ranges(pieces, keep=keep)):
            if isinstance(piece, BadImage):
                raise piece
        return b"".join(piece for piece in read if isinstance(piece, bytes))

    def now(self) -> int | None:
        """Ask for the size that the file has now; None if it is gone, -1 if that is not known."""
        try:
            return int(facts_of(self.url).get("size") or -1)
        except Exception as error:
            return None if kind_of(error) == "gone" else -1

    def _require_ranges(self) -> None:
        """Refuse a server that would send the whole file for each image."""
        place = place_of(self.url)

        async def status() -> int:
            session = await place.system.set_session()
            headers = {"Range": f"bytes=0-{min(self.size, 1024) - 1}"}
            async with session.get(place.system.encode_url(place.path), headers=headers) as answer:
                answer.raise_for_status()
                return int(answer.status)

        from fsspec.asyn import sync

        answered = tried(self, lambda: sync(place.system.loop, status), OPENING_WAITS)
        require(
            answered == 206 or self.size <= 1024,
            f"{self}: the server sends whole files ({self.size / 1e6:.1f} MB) and no ranges. "
            "Download it, or use a server that knows Range, as nginx and S3 do",
        )


Range = tuple[RemoteFile, int, int]
"""A file, the first byte, and how many."""


def read_ranges(wanted: Sequence[Range], *, keep: bool = True) -> list[bytes | BadImage]:
    """Read ranges of files of one server, many at once, those in the cache from there.

    Returns:
        For each its bytes, or why it cannot be read: the file is gone, or shorter than it was.

    Raises:
        UserError: the server cannot be reached after TRIES tries, or refuses.
    """
    result: dict[int, bytes | BadImage] = {}
    caches = _caches(wanted) if keep else {}
    for i, (file, start, size) in enumerate(wanted):
        cache = caches.get(file.cache)
        if size <= 0:
            result[i] = b""
        elif cache is not None and (kept := cache.get(_key(file, start, size))) is not None:
            result[i] = kept
    for wait in (*WAITS, None):
        missing = [i for i in range(len(wanted)) if i not in result]
        if not missing:
            break
        broken = _fetch(wanted, missing, result)
        for i in set(missing) & set(result):
            cache, data = caches.get(wanted[i][0].cache), result[i]
            if cache is not None and isinstance(data, bytes):
                cache.put(_key(*wanted[i]), data)
        if broken and wait is None:
            i, error = next(iter(broken.items()))
            then = "the same command goes on where it stopped"
            raise unreachable(str(wanted[i][0]), error, TRIES, then=then)
        if broken and wait is not None:
            time.sleep(wait)
    return [result[i] for i in range(len(wanted))]


def _fetch(
    wanted: Sequence[Range], missing: Sequence[int], result: dict[int, bytes | BadImage]
) -> dict[int, Exception]:
    """Ask for the missing ranges at once; add what is decided to `result`.

    Returns:
        What came of the others, which are to be tried again.
    """
    places = [place_of(wanted[i][0].url) for i in missing]
    starts = [wanted[i][1] for i in missing]
    ends = [wanted[i][1] + wanted[i][2] for i in missing]
    try:
        answers = _cat_ranges(places[0].system, [p.path for p in places], starts, ends)
    except Exception as error:  # of a file system that raises instead of returning them
        answers = [error] * len(missing)
    broken: dict[int, Exception] = {}
    sizes: dict[str, int | None] = {}
    for i, answer in zip(missing, answers, strict=True):
        file, start, size = wanted[i]
        if isinstance(answer, bytes) and len(answer) == size:
            result[i] = answer
            continue
        short = not isinstance(answer, Exception)
        reason = OSError(f"{len(answer)} bytes came of {size}") if short else answer
        kind = kind_of(reason)
        if kind == "refused":
            raise refused(str(file), reason)
        if file.url not in sizes:
            sizes[file.url] = None if kind == "gone" else file.now()
        now = sizes[file.url]
        if now is None:
            result[i] = BadImage(f"{file} is no longer there")
        elif 0 <= now < start + size:
            result[i] = BadImage(f"{file} has {now} bytes, and {file.size} when it was opened")
        else:
            broken[i] = reason
    return broken


def _cat_ranges(system: Any, paths: list[str], starts: list[int], ends: list[int]) -> list[Any]:
    options = {"batch_size": AT_ONCE} if getattr(system, "async_impl", False) else {}
    answers = system.cat_ranges(paths, starts, ends, on_error="return", **options)
    return list(answers)


def _key(file: RemoteFile, start: int, size: int) -> str:
    return f"{file.url}\n{file.version}\n{file.size}\n{start}\n{size}"


def _caches(wanted: Sequence[Range]) -> Mapping[CacheConfig, DiskCache]:
    return {
        config: cache
        for config in {file.cache for file, _, _ in wanted}
        if (cache := open_cache(config)) is not None
    }


_cache_of: dict[CacheConfig, DiskCache] = {}


def open_cache(config: CacheConfig) -> DiskCache | None:
    """Open a cache once in a process; None where there is none.

    Raises:
        UserError: its folder cannot be written.
    """
    if not config.dir:
        return None
    if config not in _cache_of:
        _cache_of[config] = DiskCache(Path(config.dir), int(config.gb * 1e9))
    return _cache_of[config]
