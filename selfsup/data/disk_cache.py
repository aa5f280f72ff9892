"""A folder of bounded size that keeps bytes by key, shared by processes that may be killed.

    DIR/ab/cdef...   an entry, by the sha256 of its key: a checksum, then the bytes
    DIR/tmp-...      an entry that is being written; it is renamed when it is whole
    DIR/total        the bytes of all entries, changed under a lock
    DIR/evicting     shared by processes that write an entry, locked by one that removes entries

A hit renews an entry's time. A write that does not fit removes the entries that were unused for
longest, down to nine tenths of the size. Meanwhile other processes read on and keep nothing.
"""

import contextlib
import hashlib
import itertools
import os
import threading
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
            with _locked(folder / "evicting", shared=True), _locked(folder / "total"):
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
            if not self._added(path, data, size) and self._evict(size):
                self._added(path, data, size)
        except OSError as error:
            self.shut = True
            notice(
                f"warning: the cache {self.folder} cannot be written ({error.strerror}): "
                "reading goes on without it"
            )

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def _added(self, path: Path, data: bytes, size: int) -> bool:
        """Write an entry, if there is room and no process removes entries just now."""
        with _locked(self.folder / "evicting", shared=True, wait=False) as held:
            if held is None or not self._reserve(size):
                return False
            self._write(path, data)
        return True

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
        """Remove the entries that were unused for longest; False if other processes are at work."""
        with _locked(self.folder / "evicting", wait=False) as held:
            if held is None:
                return False
            for abandoned in self.folder.glob("tmp-*"):  # of processes that were killed
                with contextlib.suppress(OSError):
                    abandoned.unlink()
            entries = sorted(self._entries())
            left = sum(entry.size for entry in entries)
            for entry in entries:
                if left + size <= self.most * LOW:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
                left -= entry.size
            with _locked(self.folder / "total") as file:
                _write_total(file, left)
        return True

    def _entries(self) -> Iterator[_Entry]:
        for folder in self.folder.glob("??"):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
                for file in found:
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat()
                        yield _Entry(status.st_mtime_ns, _rounded(status.st_size), file.path)


def _rounded(size: int) -> int:
    return -(-size // UNIT) * UNIT


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM, "big")


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[IO[bytes] | None]:
    """Hold the lock of a file in the block; None where another process has it and wait is False.

    The system gives a lock back when its process ends, however that comes.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        if fcntl is not None:
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(file, kind | (0 if wait else fcntl.LOCK_NB))
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
