"""Live progress: a bar on a terminal or in a notebook, one plain line per interval elsewhere."""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

from selfsup.core.live import (
    columns_of,
    display,
    duration,
    fit,
    laid_out,
    on_terminal,
    print_line,
    print_sentence,
)

SHORT = {
    **{"images_per_s": "img/s", "waiting": "wait"},
    **{"map_at_r": "MAP@R", "recall_at_1": "Recall@1", "knn": "k-NN"},
    **{"kept_map_at_r": "kept MAP@R", "kept_recall_at_1": "Recall@1", "kept_knn": "k-NN"},
    **{"map_at_r_without_head": "MAP@R without its new head"},
    **{"kept_map_at_r_without_head": "kept MAP@R without it"},
}
FIRST = (
    *("loss", "map_at_r", "knn", "kept_map_at_r", "active", "gap", "rank", "images_per_s"),
    *("waiting", "nearest", "recall_at_1", "cosine", "std", "lr"),
)
"""Figures that are shown first where a line has no room for all; log.jsonl has all."""
COLUMNS = 80
"""Width of a line where there is no terminal."""
RECENT = 60.0
"""Seconds whose steps say how fast a run is, and at least so many steps as `STEPS`."""
STEPS = 10
PAUSE = 2.0
"""Seconds after which it is said that a run does something other than a step."""


class Pace:
    """Time of a step, by the newest steps but the first of all, which may compile."""

    def __init__(self, start: int) -> None:
        """Begin after `start` steps."""
        self.marks: deque[tuple[float, int]] = deque()
        self.start = start

    def step(self, done: int) -> None:
        """Note that a step has ended now."""
        now = time.monotonic()
        self.marks.append((now, done))
        while len(self.marks) > STEPS and now - self.marks[1][0] > RECENT:
            self.marks.popleft()

    @property
    def seconds(self) -> float | None:
        """Seconds of a step; None before the second one has ended."""
        if len(self.marks) < 2:
            return None
        (began, first), (ended, last) = self.marks[0], self.marks[-1]
        return (ended - began) / (last - first)

    def left(self, total: int) -> float | None:
        """Seconds until the end of the run, from now on."""
        if self.seconds is None:
            return None
        ended, done = self.marks[-1]
        return max(0.0, self.seconds * (total - done) - (time.monotonic() - ended))


class TrainProgress:
    """Show how far a run is and its newest figures; silent where `shown` is false."""

    def __init__(self, total: int, start: int, *, shown: bool) -> None:
        """Show a run of `total` steps of which `start` are done."""
        self.total, self.start, self.done = total, start, start
        self.began = time.monotonic()
        self.shown = shown
        self.pace = Pace(start)
        self.latest: dict[str, float] = {}
        self.activity: Callable[[], str] = lambda: ""
        """What the run does now, in words."""
        self.since = ("", start), self.began
        self.cell = NotebookBar(total, start) if shown and in_notebook() else None
        self.closing = contextlib.ExitStack()
        self.bar = shown and self.cell is None and on_terminal()
        if self.bar:
            self.closing.enter_context(display(self._line))

    def step(self, done: int) -> None:
        """Move the bar."""
        self.done = done
        self.pace.step(done)
        if self.cell is not None:
            self.cell.move(done)

    def figures(self, done: int, values: dict[str, float]) -> None:
        """Show the newest figures."""
        self.latest |= values
        if self.cell is not None:
            self.cell.move(done, "  ".join(_words(values)[:5]))
        elif self.shown and not self.bar:
            seconds = self.pace.left(self.total) if done > self.start else None
            left = f"  {duration(seconds)} left" if seconds is not None else ""
            head = f"step {done}/{self.total}"
            words = _fitting(_words(values), COLUMNS - len(head) - len(left))
            print_line(f"{head}{words}{left}")

    def print_line(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        if self.shown:
            print_sentence(sentence)

    def close(self) -> None:
        """Leave the last line on the terminal."""
        if self.bar and self.done > self.start:
            self.activity = lambda: ""
            took = f"in {duration(time.monotonic() - self.began)}"
            self.closing.close()
            print_line(self._line(COLUMNS - 1, took))
        self.closing.close()

    def _line(self, width: int, time_left: str = "") -> str:
        head = f"{self.done:,}/{self.total:,}  {time_left or self._time_left()}"
        pause = self._paused()
        words = [pause] if pause else _words(self.latest)
        return with_bar(self.done / max(1, self.total), head, words, width)

    def _time_left(self) -> str:
        seconds = self.pace.left(self.total)
        if seconds is not None:
            return f"{duration(seconds)} left"
        return f"first step {time.monotonic() - self.began:.0f} s"

    def _paused(self) -> str:
        """What is done now if it takes longer than a step should, and for how many seconds."""
        now, doing = time.monotonic(), (self.activity(), self.done)
        if doing != self.since[0]:
            self.since = doing, now
        seconds = now - self.since[1]
        usual = 2 * (self.pace.seconds or seconds)
        return f"{doing[0]} {seconds:.0f} s" if doing[0] and seconds > max(PAUSE, usual) else ""


def with_bar(progress: float, head: str, words: list[str], width: int) -> str:
    """Return a bar, a head, and as many words as there is room for in so many columns."""
    cells = min(30, max(10, width // 5))
    full, empty = ("━", "─") if "utf" in (sys.stdout.encoding or "").lower() else ("#", ".")
    filled = round(cells * min(1.0, max(0.0, progress)))
    line = f"{full * filled}{empty * (cells - filled)} {head}"
    return fit(line + _fitting(words, width - columns_of(line)), width)


def say(sentence: str) -> None:
    """Print a line for the user on the standard error, in the main process alone."""
    if os.environ.get("RANK", "0") == "0":
        print(laid_out(sentence, sys.stderr), file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether output goes to the cell of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class NotebookBar:
    """One line of text in a notebook's cell that is written anew, at most twice a second."""

    def __init__(self, total: int, start: int) -> None:
        """Show a run of `total` steps of which `start` are done."""
        from IPython.display import display

        self.total, self.start, self.words = total, start, ""
        self.began, self.shown_at = time.monotonic(), 0.0
        self.handle = display({"text/plain": self._line(start)}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def move(self, done: int, words: str | None = None) -> None:
        """Show how many steps are done, with the newest figures if there are new ones."""
        self.words = self.words if words is None else words
        now = time.monotonic()
        if words is None and done < self.total and now - self.shown_at < 0.5:
            return
        self.shown_at = now
        self.handle.update({"text/plain": self._line(done)}, raw=True)

    def _line(self, done: int) -> str:
        full = round(20 * done / max(1, self.total))
        left = (time.monotonic() - self.began) / max(1, done - self.start) * (self.total - done)
        clock = time.strftime("%H:%M:%S", time.gmtime(left)) if done > self.start else "?"
        filled = "#" * full + "." * (20 - full)
        return f"[{filled}] {done}/{self.total}  left {clock}  {self.words}".rstrip()


@contextlib.contextmanager
def bar(what: str, total: float, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal until the block ends; call what it gives with finished images.

    Args:
        what: what is done, in words that no other bar of the command has: "features of runs/a".
        total: images, which need not be whole.
        shown: whether this process shows it.
    """
    began, done = time.monotonic(), 0

    def advance(images: int) -> None:
        nonlocal done
        done += images

    def line(width: int) -> str:
        spent = time.monotonic() - began
        if spent < 0.3:
            return ""
        whole = round(total)
        within = 0 < done < whole
        left = f"{duration(spent / done * (total - done))} left" if within else f"{spent:.0f} s"
        head = f"{min(done, whole):,}/{whole:,}  {left}"
        return with_bar(done / total if total else 1.0, head, [what], width)

    if not shown or not on_terminal():
        yield advance
        return
    with display(line):
        yield advance


def _fitting(words: list[str], room: int) -> str:
    """As many words as fit in so many columns, each after two spaces."""
    line = ""
    for word in words:
        if columns_of(line) + 2 + columns_of(word) <= room:
            line += f"  {word}"
    return line


def _words(values: dict[str, float]) -> list[str]:
    """Figures in words, those that matter most first."""

    def number(name: str, x: float) -> str:
        return f"{x:.0%}" if name == "waiting" else f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"

    names = sorted(values, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return [f"{SHORT.get(name, name)} {number(name, values[name])}" for name in names]
