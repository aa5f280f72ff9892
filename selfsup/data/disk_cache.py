"""A folder of bounded size that keeps bytes by key, shared by processes that may be killed.

    DIR/ab/cdef...   an entry, by the sha256 of its key: a checksum, then the bytes
    DIR/tmp-...      an entry that is being written; it is renamed when it is whole
    DIR/total        the bytes of all entries, changed under a lock
    DIR/evicting     locked by the process that removes entries

A hit renews an entry's time. A write that does not fit removes the entries that were unused for
longest, down to nine tenths of the size. Meanwhile other processes read on and keep nothing.
"""

import contextlib
import hashlib
import itertools
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from selfsup.core.disk import cannot_write
from selfsup.core.errors import require
from selfsup.core.notices import notice

try:
    import fcntl
except ImportError:  # Windows: the size is then kept less exactly
    fcntl = None  # type: ignore[assignment]

UNIT = 4096
"""Bytes that a disk gives out at a time; every entry counts as a whole number of them."""
CHECKSUM = 4
LARGEST = 4
"""An entry may take one part in so many of the whole."""
LOW = 0.9
"""Fraction of the size that is left after entries were removed."""
ABANDONED = 3600.0
"""Seconds after which a file that is being written belongs to a process that was killed."""
_numbers = itertools.count()


class _Entry(NamedTuple):
    used: int
    """Time of the last use, in ns."""
    size: int
    path: str


class DiskCache:
    """Bytes by key in a folder, `most` bytes of disk at most."""

    def __init__(self, folder: Path, most: int) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made or written, or is too small.
        """
        require(most >= UNIT * 256, f"--cache.gb {most / 1e9:g} is too small: give 0.01 or more")
        self.folder, self.most = folder, most
        self.shut = False
        """Whether a write has failed: then entries are only read."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "evicting"), _locked(folder / "total"):
                pass
        except OSError as error:
            raise cannot_write(folder, error.errno or 0, error) from None

    def get(self, key: str) -> bytes | None:
        """Return the bytes of a key, or None where they are not there or damaged."""
        path = self._path(key)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        data = stored[CHECKSUM:]
        if _checksum(data) != stored[:CHECKSUM]:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # removed meanwhile
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes of a key, if there is room; a disk that cannot be written is no error."""
        path, size = self._path(key), _rounded(len(data) + CHECKSUM)
        if self.shut or size > self.most // LARGEST or path.exists():
            return
        try:
            if self._reserve(size) or (self._evict(size) and self._reserve(size)):
                self._write(path, data)
        except OSError as error:
            self.shut = True
            notice(
                f"warning: the cache {self.folder} cannot be written ({error.strerror}): "
                "reading goes on without it"
            )

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def _write(self, path: Path, data: bytes) -> None:
        name = f"tmp-{os.getpid()}-{threading.get_ident()}-{next(_numbers)}"
        temporary = self.folder / name
        try:
            with temporary.open("wb") as out:
                out.write(_checksum(data))
                out.write(data)
            path.parent.mkdir(exist_ok=True)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _reserve(self, size: int) -> bool:
        """Count `size` more bytes; False if they do not fit."""
        with _locked(self.folder / "total") as file:
            total = _read_total(file)
            if total is None:  # a new folder, or one whose count was lost
                total = sum(entry.size for entry in self._entries())
            fits = total + size <= self.most
            _write_total(file, total + size * fits)
        return fits

    def _evict(self, size: int) -> bool:
        """Remove the entries that were unused for longest; False if another process does so."""
        with _locked(self.folder / "evicting", wait=False) as held:
            if held is None:
                return False
            with _locked(self.folder / "total") as file:
                before = _read_total(file) or 0
            entries = sorted(self._entries())
            left = sum(entry.size for entry in entries)
            for entry in entries:
                if left + size <= self.most * LOW:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
                left -= entry.size
            with _locked(self.folder / "total") as file:  # others may have written meanwhile
                meanwhile = (_read_total(file) or before) - before
                _write_total(file, max(0, left + meanwhile))
        return True

    def _entries(self) -> Iterator[_Entry]:
        """List all entries, and remove what killed processes left behind."""
        for folder in (self.folder, *(p for p in self.folder.iterdir() if p.is_dir())):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
                for file in found:
                    if folder == self.folder and not file.name.startswith("tmp-"):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat()
                        if folder == self.folder and time.time() - status.st_mtime > ABANDONED:
                            os.unlink(file.path)
                            continue
                        yield _Entry(status.st_mtime_ns, _rounded(status.st_size), file.path)


def _rounded(size: int) -> int:
    return -(-size // UNIT) * UNIT


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM, "big")


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[IO[bytes] | None]:
    """Hold the lock of a file in the block; None where another process has it and wait is False.

    The system gives a lock back when its process ends, however that comes.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
        yield file


def _read_total(file: IO[bytes] | None) -> int | None:
    assert file is not None
    file.seek(0)
    text = file.read(32)
    return int(text) if text.strip().isdigit() else None


def _write_total(file: IO[bytes] | None, total: int) -> None:
    assert file is not None
    file.seek(0)
    file.write(b"%20d" % total)
