"""Writing to disks that may be full, slow or shut: tried three times, then one sentence."""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from selfsup.core.errors import NoRoomError, UserError

T = TypeVar("T")
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
AGAIN = FULL | {errno.EIO, errno.EAGAIN, getattr(errno, "ESTALE", errno.EIO)}
"""Errors that may pass: somebody frees room, a server comes back."""
CANNOT_FLUSH = {
    *(errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF, errno.EINVAL, errno.ENOSYS),
    getattr(errno, "ENOTSUP", errno.EINVAL),
    getattr(errno, "EOPNOTSUPP", errno.EINVAL),
}
"""Errors of systems that have no handles of folders, and of file systems without fsync."""
IN_RUST = r"os error (\d+)"
"""How libraries in Rust, safetensors and Lance, tell an errno, among places in their source."""
WAITS = (0.5, 2.0)
"""Seconds between the three tries."""
RACES = 20
"""Tries to make a folder whose parents others make and remove at the same moment."""


def write_to(
    place: Path,
    work: Callable[[], T],
    *,
    needed: int = 0,
    clean: Callable[[], object] = lambda: None,
) -> T:
    """Call `work`, which writes `place`, three times at most, and return its result.

    Args:
        place: what is written, for the message.
        work: raises an OSError, or safetensors' error, where it cannot write.
        needed: bytes that it writes, as far as they are known.
        clean: removes what a failed try left behind.

    Raises:
        NoRoomError: the disk or the quota is full.
        UserError: it cannot be written for another reason.
    """
    for wait in (*WAITS, None):
        try:
            return work()
        except Exception as error:
            code = code_of(error)
            if code is None:
                raise
            clean()
            if wait is None or code not in AGAIN:
                raise cannot_write(place, code, error, needed=needed) from None
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def cannot_write(place: Path, code: int, error: Exception, *, needed: int = 0) -> UserError:
    """Make the error that says why `place` cannot be written, and what to do."""
    if code not in FULL:
        named = os.strerror(code) if re.search(IN_RUST, str(error)) else str(error)
        reason = getattr(error, "strerror", None) or named
        return UserError(f"cannot write {place}: {reason}. Choose a place that can be written")
    size = f"it needs {needed / 1e6:.1f} MB, and " if needed else ""
    return NoRoomError(
        f"no room for {place}: {size}{free_bytes(place) / 1e6:.1f} MB are free there. What was "
        "written before is whole; free some room and give the same command again"
    )


def free_bytes(place: Path) -> int:
    """Count the bytes that are free on the disk of a place, which need not exist yet."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0


def flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk, where the system can say so.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise


@contextlib.contextmanager
def written_whole(file: Path) -> Iterator[TextIO]:
    """Write a text file beside its place and move it there when it is complete."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out:
            yield out
        flush(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    """Replace a file by this text, whole or not at all."""
    with written_whole(file) as out:
        out.write(text)


def same_permissions(folder: Path, like: str) -> None:
    """Give all files of a folder the permissions of one of them: safetensors' are its owner's."""
    mode = (folder / like).stat().st_mode & 0o777
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # a file system without permissions
            file.chmod(mode)


def code_of(error: Exception) -> int | None:
    """Return the errno of an error of the system; None for any other error."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = re.search(IN_RUST, str(error))
    if match and (isinstance(error, OSError) or type(error).__name__ == "SafetensorError"):
        return int(match[1])
    return errno.EIO if isinstance(error, OSError) else None


def require_writable(folder: Path) -> None:
    """Try whether files can be made in a folder, and leave nothing behind.

    Raises:
        UserError: they cannot.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    probe = folder / f".selfsup-write-test-{os.getpid()}"
    try:
        for left in reversed(range(RACES)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe.write_bytes(b"x")
                break
            except (FileNotFoundError, FileExistsError):  # another process removed its own
                if not left:
                    raise
        probe.unlink()
    except OSError as error:
        raise cannot_write(folder, error.errno or errno.EIO, error) from None
    finally:
        for made in missing:
            with contextlib.suppress(OSError):  # others have written there, or removed it
                made.rmdir()
