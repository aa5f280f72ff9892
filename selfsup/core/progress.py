"""Live progress: a bar on a terminal or in a notebook, one plain line per interval elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHORT = {
    **{"images_per_s": "img/s", "waiting": "wait"},
    **{"map_at_r": "MAP@R", "recall_at_1": "Recall@1", "knn": "k-NN"},
    **{"kept_map_at_r": "kept MAP@R", "kept_recall_at_1": "Recall@1", "kept_knn": "k-NN"},
    **{"map_at_r_without_head": "MAP@R without its new head"},
    **{"kept_map_at_r_without_head": "kept MAP@R without it"},
}


class TrainProgress:
    """Show how far a run is and its newest figures; silent where `shown` is false."""

    def __init__(self, total: int, start: int, *, shown: bool) -> None:
        """Show a run of `total` steps of which `start` are done."""
        self.total = total
        self.start = start
        self.began = time.monotonic()
        self.shown = shown
        self.bar: Progress | None = None
        self.cell = NotebookBar(total, start) if shown and in_notebook() else None
        if shown and self.cell is None and sys.stdout.isatty():
            self.bar = Progress(
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}"),
                console=Console(),
            )
            self.task = self.bar.add_task("", total=total, completed=start, figures="")
            self.bar.start()

    def step(self, done: int) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done)
        elif self.cell is not None:
            self.cell.move(done)

    def figures(self, done: int, values: dict[str, float]) -> None:
        """Show the newest figures."""
        if self.bar is not None:
            self.bar.update(self.task, figures=_words(values, most=5))
        elif self.cell is not None:
            self.cell.move(done, _words(values, most=5))
        elif self.shown:
            each = (time.monotonic() - self.began) / max(1, done - self.start)
            left = time.strftime("%H:%M:%S", time.gmtime(each * (self.total - done)))
            left = left if done > self.start else "?"
            print(f"step {done}/{self.total}  {_words(values)}  left {left}", flush=True)

    def print_line(self, sentence: str) -> None:
        """Print a sentence without breaking the bar."""
        if self.bar is not None:
            self.bar.console.print(sentence, markup=False, highlight=False)
        elif self.shown:
            print(sentence, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


def say(sentence: str) -> None:
    """Print a line for the user on the standard error, in the main process alone."""
    if os.environ.get("RANK", "0") == "0":
        print(sentence, file=sys.stderr, flush=True)


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
    """Show a bar until the block ends; call what it gives with the number of finished images."""
    console = Console()
    hidden = not (shown and console.is_terminal)  # elsewhere it would leave empty lines
    with Progress(transient=True, disable=hidden, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda images: progress.advance(task, images)


def _words(values: dict[str, float], most: int = 99) -> str:
    def number(name: str, x: float) -> str:
        return f"{x:.0%}" if name == "waiting" else f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"

    items = list(values.items())[:most]
    return "  ".join(f"{SHORT.get(name, name)} {number(name, x)}" for name, x in items)
