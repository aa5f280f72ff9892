"""A pseudo-terminal as a person has it: what stands in its lines, when, and how wide they are."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launch import environment

STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Seen(NamedTuple):
    """What a person has seen on a terminal."""

    status: int
    lines: list[str]
    """Lines that stay, without spaces at their ends."""
    passing: list[tuple[float, str]]
    """Each state of the bottom line before it was replaced, with the seconds since the start."""
    silences: list[tuple[float, str]]
    """Seconds without a change, with the last line before each; without those in which the command
    waited for a core, since others have them too."""
    widest: int
    """Columns of the widest line at any time."""

    def longest_silence(self) -> tuple[float, str]:
        return max(self.silences)


def in_terminal(command: Sequence[str | Path], cwd: Path, *, columns: int = 80) -> Seen:
    """Run a command in a pseudo-terminal of that width to its end."""
    pid, device = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        plain = environment(TERM="xterm", PYTHONIOENCODING="utf-8")
        plain.pop("COLUMNS")
        os.execvpe(str(command[0]), [str(part) for part in command], plain)
    fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    began = time.monotonic()
    last = began - waited(pid)
    screen = Screen()
    while True:
        select.select([device], [], [], 60)
        try:
            data = os.read(device, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        now, before = time.monotonic() - waited(pid), screen.text()
        screen.write(data.decode(errors="replace"), time.monotonic() - began)
        if screen.text() != before:
            screen.silences.append((now - last, before.split("\n")[-1]))
            last = now
    os.close(device)
    screen.silences.append((time.monotonic() - waited(pid) - last, "the end"))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    *lines, bottom = screen.lines
    kept = [*lines, *([bottom] if bottom.strip() else [])]
    return Seen(
        status, [line.rstrip() for line in kept], screen.passing, screen.silences, screen.widest
    )


def waited(pid: int) -> float:
    """Seconds in which the first thread of a process has waited for a core; 0 where none counts."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Screen:
    """Lines that grow downwards; a carriage return goes to the start of the last one."""

    def __init__(self) -> None:
        self.lines, self.column = [""], 0
        self.passing: list[tuple[float, str]] = []
        self.silences: list[tuple[float, str]] = []
        self.widest = 0

    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    def write(self, text: str, at: float) -> None:
        for part in re.split(r"([\r\n])", STYLES.sub("", text)):
            if part == "\r":
                self.passing.append((at, self.lines[-1].rstrip()))
                self.column = 0
            elif part == "\n":
                self.lines.append("")
                self.column = 0
            elif part:
                line = self.lines[-1]
                self.lines[-1] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)
                self.widest = max(self.widest, columns(self.lines[-1].rstrip()))


def columns(text: str) -> int:
    """Columns of a text, by the tables of Unicode."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


PYTHON = sys.executable
