"""One writer a folder: a file that names the process that writes there.

The file has host, pid and start of the writer, who renews its time every BEAT seconds. A writer of
this machine is dead when its process is gone; one of another machine when the file's time has not
changed for SILENT seconds, so that file systems without locks are served as well.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selfsup.core.disk import cannot_write
from selfsup.core.errors import InUseError
from selfsup.core.progress import say

NAME = ".writer.json"
BEAT = 5.0
SILENT = 20.0


class Writer:
    """The right to write in a folder, once `acquire` has returned."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        """Name the folder, and the file in it; nothing is written yet."""
        self.folder = folder
        self.file = folder / name
        self.released = threading.Event()
        self.me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": born(os.getpid()),
            "start": time.strftime("%Y-%m-%d %H:%M:%S"),
        }

    def acquire(self, print_line: Callable[[str], None]) -> None:
        """Become the writer of the folder, which exists.

        Args:
            print_line: gets a sentence if a dead writer's right is taken over.

        Raises:
            InUseError: another process writes there.
        """
        for _ in range(5):
            if self._create():
                threading.Thread(target=self._beat, daemon=True, name="selfsup writer").start()
                return
            other = self._read()
            if other is None:
                continue  # it has ended meanwhile
            if (other.get("pid"), other.get("born"), other.get("host")) == (
                self.me["pid"],
                self.me["born"],
                self.me["host"],
            ):
                return
            if self._alive(other):
                raise InUseError(self._in_use(other))
            if self._remove(other):
                print_line(
                    f"{self.folder}: process {other.get('pid')} on {other.get('host')} is gone "
                    f"(it wrote here since {other.get('start')}); this one takes over"
                )
        raise InUseError(self._in_use(self._read() or {}))

    def _in_use(self, other: dict[str, Any]) -> str:
        return (
            f"{self.folder} is in use by process {other.get('pid')} on {other.get('host')} since "
            f"{other.get('start')}: wait for it, stop it, or choose another folder"
        )

    def _create(self) -> bool:
        """Make the file, whole from its first moment; False if there is one."""
        text = json.dumps(self.me)
        part = self.folder / f"{self.file.name}.{self.me['host']}.{self.me['pid']}"
        part.write_text(text)
        try:
            os.link(part, self.file)
        except FileExistsError:
            return False
        except (OSError, AttributeError):  # without hard links
            try:
                with self.file.open("x") as out:
                    out.write(text)
            except FileExistsError:
                return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def _read(self) -> dict[str, Any] | None:
        """The writer that the file names; None if there is no file, {} if it is damaged."""
        try:
            other = json.loads(self.file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return other if isinstance(other, dict) else {}

    def _alive(self, other: dict[str, Any]) -> bool:
        if other.get("host") == self.me["host"] and os.name == "posix":
            return is_running(other.get("pid"), other.get("born"))
        began, until = self._time(), time.monotonic() + SILENT
        while time.monotonic() < until:
            time.sleep(0.5)
            if self._time() != began:
                return self._time() is not None
        return False

    def _time(self) -> int | None:
        try:
            return self.file.stat().st_mtime_ns
        except OSError:
            return None

    def _remove(self, other: dict[str, Any]) -> bool:
        """Remove a dead writer's file; False if another process was quicker."""
        aside = self.folder / f"{self.file.name}.dead.{self.me['host']}.{self.me['pid']}"
        try:
            self.file.rename(aside)
            mine = aside.read_text() == json.dumps(other) or not other
            if not mine:
                with contextlib.suppress(FileExistsError, AttributeError):
                    os.link(aside, self.file)
            aside.unlink()
        except OSError:
            return False
        return mine

    def _beat(self) -> None:
        while not self.released.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.file)

    def release(self) -> None:
        """Give the right back, if it is still this process's."""
        self.released.set()
        with contextlib.suppress(OSError):
            if self._read() == self.me:
                self.file.unlink()


@contextlib.contextmanager
def only_writer(folder: Path, name: str = NAME) -> Iterator[None]:
    """Be the only writer of a folder, or of what `name` stands for in it, during the block.

    Raises:
        InUseError: another process writes there.
        UserError: the folder cannot be written.
    """
    writer = Writer(folder, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer.acquire(say)
    except OSError as error:
        raise cannot_write(folder, error.errno or 0, error) from None
    try:
        yield
    finally:
        writer.release()


def is_running(pid: Any, since: Any) -> bool:
    """Whether a process of this machine runs, and is the one that was born then."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    now = born(pid)
    return now != "dead" and (since is None or now is None or now == since)


def born(pid: int) -> str | None:
    """When a process started, in ticks since boot; "dead" for a zombie, None if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return "dead" if fields[0] in "ZX" else fields[19]
