"""Watch a run: log each interval, and warn when embeddings collapse."""

import contextlib
import shlex
import time
from collections import deque
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from selfsup.config import TrainConfig
from selfsup.core.errors import DivergedError
from selfsup.core.seeds import StepInfo
from selfsup.data.loader import Batch
from selfsup.data.sources import Source
from selfsup.methods.health import Signs, diagnose, window
from selfsup.methods.method import Method
from selfsup.training.run import Run
from selfsup.training.step import Stepper

MOST_WAITING = 0.2
"""Fraction of the time that steps may wait for images before a run says what helps."""


class Watch:
    """Measure times, bad images and signs since the last report, without changing training."""

    def __init__(self, run: Run, method: Method, source: Source, *, batch: int, start: int) -> None:
        """Watch a run that begins after `start` steps with global batches of `batch` images."""
        self.run = run
        self.method = method
        self.source = source
        self.batch = batch
        self.bad: dict[str, str] = {}
        self.hinted = self.hinted_of_waiting = False
        first, recent = run.past_reports(window(batch))
        self.first: Signs | None = first
        self.recent: deque[Signs] = deque(recent, maxlen=window(batch))
        states = [str(report.get("state", "healthy")) for report in reversed(recent)]
        self.unhealthy_reports = len(list(takewhile(lambda state: state != "healthy", states)))
        self._begin(start)

    def _begin(self, done: int) -> None:
        self.began, self.waited, self.since = time.monotonic(), 0.0, done

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the time of the block, which waits for data."""
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start

    def record_bad(self, batch: Batch) -> None:
        """Remember the images of a batch that could not be read."""
        self.bad |= {self.source.name(position): why for position, why in batch.bad.items()}

    def require_few_bad(self) -> None:
        """List unreadable images, and stop before a checkpoint counts if they are too many.

        Raises:
            UserError: they are more than --max-bad.
        """
        self.run.report_bad(self.bad, len(self.source))

    def report(self, done: int, loss: float, lr: float, stepper: Stepper, info: StepInfo) -> None:
        """Log the interval that ends after `done` steps.

        Raises:
            UserError: too many images are bad, or the run is unhealthy and --on-collapse is stop.
        """
        self.run.report_bad(self.bad, len(self.source))
        spent = time.monotonic() - self.began
        signs = self.method.signs(stepper.embeddings, stepper.labels, info)
        self.first = self.first or signs
        self.recent.append(signs)
        health = diagnose(
            self.first,
            list(self.recent),
            self.batch,
            self.method.remedies(info),
            width=stepper.embeddings[0].shape[-1],
        )
        figures = {
            "loss": loss,
            "images_per_s": (done - self.since) * self.batch / spent,
            "waiting": self.waited / spent,
            "lr": lr,
            **signs,
        }
        self.run.log(done, figures, state=health.state)
        self._hint_of_waiting(done, self.waited / spent)
        self.unhealthy_reports = 0 if health.state == "healthy" else self.unhealthy_reports + 1
        if self.unhealthy_reports:
            message = f"at step {done} the run is {health.state}: {health.advice}"
            if self.run.config.on_collapse == "stop" and self.unhealthy_reports > 1:
                raise DivergedError(f"{message} (stopped by --on-collapse stop)")
            self.run.print_line(f"warning: {message}")
        elif health.advice and not self.hinted and len(self.recent) == self.recent.maxlen:
            self.hinted = True
            self.run.print_line(f"hint: at step {done} {health.advice}")
        self._begin(done)

    def _hint_of_waiting(self, done: int, fraction: float) -> None:
        """Say once what helps if steps wait for images; readers start before the first report."""
        if self.hinted_of_waiting or fraction <= MOST_WAITING or done <= self.since + 1:
            return
        if hint := quicker_reading(self.run.config, in_memory=self.source.in_memory):
            self.hinted_of_waiting = True
            self.run.print_line(f"hint: steps wait {fraction:.0%} of the time for images: {hint}")


def quicker_reading(config: TrainConfig, *, in_memory: bool) -> str:
    """Name what makes the images of a run quicker to read; "" if it is only what a reader computes.

    A pack has them shrunk to little more than a view, which is most of the work of decoding:
    500 x 375 pixels are read at 200 images a second by a core, 341 x 256 at 350.
    """
    data, workers = str(config.data), "more --workers, one for each core"
    if in_memory:
        return workers if config.workers != 0 else ""
    path = Path(data)
    names = [path.name] if path.is_file() else [p.name for p in path.glob("*.pack")]
    if not path.exists() or any(name.endswith(".pack") for name in names):
        return workers
    side = max(config.views.sizes) * 8 // 7  # 256 for views of 224, as evaluations resize
    pack = str(path.resolve().with_suffix(".pack"))
    command = shlex.join(["selfsup", "pack", "--data", data, "--out", pack, "--side", str(side)])
    return f"`{command}` once, then --data {shlex.quote(pack)}; or {workers}"
