"""status.json of a run: what it does now, or how it ended, for people and schedulers.

state        running, done, stopped (on request) or failed
step, total  steps done, and steps of the run
reason       why it ended, in words
exit_status  see CONTRIBUTING.md; null while it runs
pid, born    of the process, on `host`: when it began, in the system's ticks
heartbeat    seconds since 1970; renewed every few seconds while the run lives
command      what goes on with the run
"""

import atexit
import contextlib
import json
import os
import platform
import shlex
import socket
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selfsup.core.ending import at_end
from selfsup.core.secrets import without_passwords
from selfsup.core.stopping import INTERRUPTED, STOPPED
from selfsup.core.version import __version__
from selfsup.core.writer import BEAT, Writer, born

STATES = {0: "done", STOPPED: "stopped", INTERRUPTED: "stopped"}


class Status:
    """Keep status.json of a run folder fresh, from a thread of its own."""

    def __init__(self, folder: Path, writer: Writer) -> None:
        """Begin; the end comes by `core.ending`."""
        self.file = folder / "status.json"
        self.writer = writer
        self.values: dict[str, Any] = {
            "state": "running",
            "step": 0,
            "total": None,
            "reason": "",
            "exit_status": None,
            "heartbeat": 0.0,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": born(os.getpid()),
            "command": command(),
        }
        self.ended = threading.Event()
        self.mutex = threading.Lock()
        self._write()
        threading.Thread(target=self._beat, daemon=True, name="selfsup status").start()
        at_end(self.end)
        atexit.register(self._leave)  # of a script that has no `core.ending`

    def at(self, step: int, total: int) -> None:
        """Note how far the run is; the next heartbeat writes it, and the first call does."""
        first = self.values["total"] is None
        self.values |= {"step": step, "total": total}
        if first:
            with self.mutex:
                self._write()

    def end(self, status: int, reason: str) -> None:
        """Write how the run ended and give the folder back."""
        self.ended.set()
        state = STATES.get(status, "failed")
        with self.mutex:
            self.values |= {"state": state, "exit_status": status, "reason": reason}
            self._write()
        self.writer.release()

    def _leave(self) -> None:
        if not self.ended.is_set():
            failed = getattr(sys, "last_value", None) is not None
            self.end(int(failed), "an exception" if failed else "the process ended")

    def _beat(self) -> None:
        while not self.ended.wait(BEAT):
            with self.mutex:
                if not self.ended.is_set():
                    self._write()

    def _write(self) -> None:
        """Write the file; a status that cannot be written does not end training."""
        values = self.values | {"heartbeat": round(time.time(), 3)}
        part = self.file.with_name(f".{self.file.name}.part")
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(values, indent=1) + "\n")
            part.replace(self.file)


def command() -> str:
    """The command that started this process, as a person gives it."""
    program, *flags = sys.argv
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        start = f"accelerate launch --num_processes {os.environ['WORLD_SIZE']}"
        start += " -m" if program.startswith("selfsup ") else ""
    else:
        start = "" if program.startswith("selfsup ") else "python"
    words = program if program.startswith("selfsup ") else shlex.quote(program)
    return without_passwords(" ".join([*start.split(), words, shlex.join(flags)]).strip())


def about() -> dict[str, str]:
    """Return how a run was started: command, machine and versions."""
    return {
        "command": without_passwords(command()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in ("torch", "timm", "accelerate", "numpy")},
        "selfsup": __version__,
    }
