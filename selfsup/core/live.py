"""The live line: one line at the bottom of a terminal that says what is done now.

    with live():
        doing("opening the images")  # "opening the images  4 s", until the next `doing`
        with display(lambda width: "a bar of that width"):
            print("above the line")

A thread draws it anew several times a second; what is printed meanwhile goes above it. Where the
output is no terminal nothing is drawn.
"""

import contextlib
import os
import shutil
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from selfsup.core.stopping import stop_unread

EVERY = 0.2
"""Seconds between two drawings."""
LONG = 0.6
"""Seconds after which what is done is named: shorter work would only flicker."""

Render = Callable[[int], str]
"""From a number of columns to a text that fits in them; empty for no line."""


class _Line:
    """The state of the live line of this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.renders: list[Render] = []
        self.columns = 0
        """Columns of the line that is drawn now; 0 if none is."""
        self.at_start = True
        """Whether the cursor is where a line begins, so that the line may be drawn."""
        self.out: TextIO = sys.stdout
        self.replaced: dict[str, Any] = {}
        """Streams of `sys` that go through `_Above` now, by name."""
        self.ended = threading.Event()
        self.what, self.since = "", 0.0

    def activity(self, width: int) -> str:
        seconds = time.monotonic() - self.since
        if not self.what or seconds < LONG:
            return ""
        clock = f"  {seconds:.0f} s"
        return fit(self.what, width - len(clock)) + clock

    def begin(self) -> None:
        self.out, self.columns, self.at_start = sys.stdout, 0, True
        self.ended = threading.Event()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream.isatty():
                self.replaced[name] = stream
                setattr(sys, name, _Above(stream))
        ended = self.ended
        threading.Thread(target=self._redraw, args=(ended,), daemon=True, name="live line").start()

    def end(self) -> None:
        self.ended.set()
        with self.lock:
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                self.erase()
            self.restore()

    def restore(self) -> None:
        for name, stream in self.replaced.items():
            if isinstance(getattr(sys, name), _Above):
                setattr(sys, name, stream)
        self.replaced.clear()

    def _redraw(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY):
            with self.lock, contextlib.suppress(OSError, ValueError):
                if not ended.is_set():
                    self.draw()

    def draw(self) -> None:
        if not self.renders or not self.at_start:
            return
        width = terminal_width() - 1  # in the last column some terminals begin a new line
        text = fit(self.renders[-1](width), width)
        if not text:
            self.erase()
            return
        columns = columns_of(text)
        self.out.write(f"\r{text}{' ' * max(0, min(self.columns, width) - columns)}")
        self.out.flush()
        self.columns = columns

    def erase(self) -> None:
        if self.columns:
            self.out.write(f"\r{' ' * self.columns}\r")
            self.out.flush()
            self.columns = 0

    def after_fork(self) -> None:
        """Be no line in a new process, which has no thread that draws it."""
        self.lock = threading.RLock()
        self.restore()
        self.renders, self.columns = [], 0


class _Above:
    """A stream of the terminal that takes the live line away before it is written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _line.lock:
            _line.erase()
            if text:
                _line.at_start = text.endswith("\n")
            return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_line = _Line()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=lambda: _line.lock.acquire(),
        after_in_parent=lambda: _line.lock.release(),
        after_in_child=lambda: _line.after_fork(),
    )


def on_terminal() -> bool:
    """Whether this process draws a line: the first of a run, on a terminal that can redraw it."""
    first = os.environ.get("RANK", "0") == "0"
    return first and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


@contextlib.contextmanager
def live(what: str = "loading PyTorch") -> Iterator[None]:
    """Show what `doing` says while the block runs, on a terminal; elsewhere do nothing.

    In a block of another one it goes on with that one's line.
    """
    if _line.renders or not on_terminal():
        yield
        return
    doing(what)
    _line.renders = [_line.activity]
    _line.begin()
    try:
        yield
    finally:
        _line.end()
        _line.renders, _line.what = [], ""


def doing(what: str) -> None:
    """Say what is done from now on, in a few words: "opening the images"."""
    _line.what, _line.since = what, time.monotonic()


def activity() -> str:
    """Return what is done now."""
    return _line.what


@contextlib.contextmanager
def display(render: Render) -> Iterator[None]:
    """Draw this line instead of the one before until the block ends, on a terminal."""
    with live():
        _line.renders = [*_line.renders, render] if _line.renders else []
        try:
            yield
        finally:
            with _line.lock:
                _line.renders = [each for each in _line.renders if each is not render]
                doing(_line.what)


def terminal_width() -> int:
    """Columns of the terminal."""
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def laid_out(sentence: str, stream: TextIO) -> str:
    """Break a sentence between words where it is wider than the terminal; elsewhere leave it.

    Names and commands are never cut, so that they can be copied.
    """
    if not stream.isatty():
        return sentence
    width = terminal_width()
    keep: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return "\n".join(
        line
        if columns_of(line) <= width
        else textwrap.fill(line, width, subsequent_indent="  ", **keep)
        for line in sentence.split("\n")
    )


def print_line(line: str) -> None:
    """Print a line on the standard output; a run whose reader has gone away is asked to stop."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        if not stop_unread():
            raise


def print_sentence(sentence: str) -> None:
    """Print a sentence on the standard output, broken between words on a terminal."""
    print_line(laid_out(sentence, sys.stdout))


def columns_of(text: str) -> int:
    """Columns of a text on a terminal: East Asian characters and emoji take two."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def fit(text: str, width: int) -> str:
    """Shorten a text to so many columns, with "..." at its end."""
    if columns_of(text) <= width:
        return text
    while text and columns_of(text) > width - 3:
        text = text[:-1]
    return f"{text}..." if width >= 3 else "..."[: max(0, width)]


def duration(seconds: float) -> str:
    """A time in words, with at most two units: "45 s", "12 min", "2 h 5 min", "3 days 4 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 10:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    hours = round(minutes / 60)
    if hours < 48:
        return f"{hours} h"
    days, rest = divmod(hours, 24)
    return f"{days} days {rest} h" if days < 10 and rest else f"{days} days"
