"""Live progress: a bar on a terminal, one plain line per interval elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHORT = {"images_per_s": "img/s", "waiting": "wait"}


class TrainProgress:
    """Shows how far a run is and its newest figures; silent where `shown` is false."""

    def __init__(self, total: int, start: int, *, shown: bool) -> None:
        """A run of `total` steps of which `start` are done."""
        self.total = total
        self.start = start
        self.began = time.monotonic()
        self.shown = shown
        self.bar: Progress | None = None
        if shown and sys.stdout.isatty():
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

    def figures(self, done: int, values: dict[str, float]) -> None:
        """Show the newest figures."""
        if self.bar is not None:
            self.bar.update(self.task, figures=_words(values, most=5))
        elif self.shown:
            each = (time.monotonic() - self.began) / max(1, done - self.start)
            left = time.strftime("%H:%M:%S", time.gmtime(each * (self.total - done)))
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


@contextlib.contextmanager
def bar(what: str, total: float, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar that goes when the block ends; call what it gives with the images that are done."""
    with Progress(transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda images: progress.advance(task, images)


def _words(values: dict[str, float], most: int = 99) -> str:
    def number(name: str, x: float) -> str:
        return f"{x:.0%}" if name == "waiting" else f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"

    items = list(values.items())[:most]
    return "  ".join(f"{SHORT.get(name, name)} {number(name, x)}" for name, x in items)
