"""The run folder: settings, log, checkpoints and the encoder of a run.

config.yaml     the settings, for --config
about.json      the command and the versions
log.jsonl       one line of figures per interval
start/          config.json for timm: the network of --init, whose weights the checkpoints have
validation.json which encoder a fine-tuning exported, and why
bad_images.csv  images that could not be read, and why
best/           the encoder of a fine-tuning's best probe
checkpoints/    the newest few
encoder/        config.json and model.safetensors for timm, once the run has finished
"""

import contextlib
import csv
import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from selfsup.config import TrainConfig
from selfsup.core import distributed
from selfsup.core.disk import cannot_write, write_whole, written_whole
from selfsup.core.ending import at_end
from selfsup.core.errors import DivergedError, UnusableError, UserError
from selfsup.core.json_lines import read_steps
from selfsup.core.live import doing, print_sentence
from selfsup.core.notices import notice
from selfsup.core.numerics import all_finite
from selfsup.core.paths import refuse_passwords
from selfsup.core.progress import TrainProgress
from selfsup.core.seeds import seed_for
from selfsup.core.settings import to_dict
from selfsup.core.stopping import requested, stop
from selfsup.core.writer import Writer
from selfsup.data.sources import Source
from selfsup.training import checkpoint
from selfsup.training.agreement import require_agreement, require_shared
from selfsup.training.same_work import (
    LOCAL,
    changed_settings,
    check_folder,
    compare_work,
    describe_work,
    flat,
    stored_settings,
)
from selfsup.training.saving import Saving
from selfsup.training.status import Status, about, command


class Run:
    """One run folder; only the main process writes to it."""

    def __init__(self, config: TrainConfig) -> None:
        """Open the folder `config.out`, new or to go on with.

        Raises:
            UserError: the folder belongs to something else or to a run with other settings.
        """
        self.folder = Path(config.out)
        self.accelerator = distributed.start(track=config.track, folder=config.out)
        self.main = self.accelerator.is_main_process
        self.config = config
        self.progress: TrainProgress | None = None
        self._extra: Any = None
        self.log_is_torn = False
        self.others: dict[str, Source] = {}
        """Images beside those that are trained on, by what they are for."""
        self.work: dict[str, Any] | None = None
        settings = to_dict(config)
        for text in flat(settings).values():
            refuse_passwords(str(text))
        self._check(settings)
        distributed.wait()  # all have read the old settings before the new ones are written
        self.saving = Saving()
        self.status: Status | None = None  # of the main process
        distributed.on_main(lambda: self._take(settings))
        require_shared(self.folder)
        if config.track:
            self._track(settings)
        torch.manual_seed(seed_for(config.seed, 0, "weights"))  # of the network made next

    def _take(self, settings: dict[str, Any]) -> None:
        """Become the writer of the folder and write what runs.

        Raises:
            InUseError: another process writes there.
            UserError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            writer = Writer(self.folder)
            writer.acquire(self.print_line)
            self.status = Status(self.folder, writer)
            at_end(lambda *_: self.saving.close())  # before the status gives the folder back
            text = yaml.safe_dump(settings, sort_keys=False)
            write_whole(self.folder / "config.yaml", text)
            write_whole(self.folder / "about.json", json.dumps(about(), indent=2) + "\n")
        except OSError as error:
            raise cannot_write(self.folder, error.errno or 0, error) from None

    def at(self, step: int, total: int) -> None:
        """Note for status.json how far the run is."""
        if self.status is not None:
            self.status.at(step, total)

    def stop_if_requested(self, when: str) -> None:
        """End the run on all processes if any was asked to; all have to call it.

        Raises:
            StopRequested: or KeyboardInterrupt for Ctrl-C.
        """
        if halt := max(distributed.gather_objects(requested())):
            self.stop(when, halt)

    def stop(self, when: str, signum: int) -> None:
        """End the run, since a signal asked for it; `when` says what is done.

        Raises:
            StopRequested: or KeyboardInterrupt for Ctrl-C.
        """
        name = signal.Signals(signum).name
        self.print_line(f"{name}: stopped {when}")
        if self.main:  # in one line, however long, so that it can be pasted
            print(f"go on with: {command()}", flush=True)
        if self.config.track:
            self.accelerator.end_training()
        stop(signum)

    def begin(self, source: Source, *, total: int) -> None:
        """Compare this process's images and settings with those of others and of checkpoints.

        Raises:
            UserError: they differ, or the checkpoints' images do and --other-images is not given.
        """
        doing("reading a sample of the images")
        self.work = describe_work(source, to_dict(self.config), about(), self.others)
        names = ("number of images", "names of images", "labels", "content of images")
        images = dict(zip(names, self.work["images"].values(), strict=True))
        settings = {k: v for k, v in flat(self.work["settings"]).items() if k not in LOCAL}
        steps = {"number of steps": total}
        beside = {f"images of {name}": found for name, found in self.work["others"].items()}
        require_agreement(images | beside | steps | settings | self.work["versions"])
        sources = {"": source, **self.others}
        other = self.config.other_images
        for line in compare_work(self.folder, sources, self.work, other_images=other):
            self.print_line(line)

    def _check(self, settings: dict[str, Any]) -> None:
        file = self.folder / "config.yaml"
        check_folder(self.folder)
        if not file.exists() or not checkpoint.any_in(self.folder):
            return  # nothing was computed with the old settings that is still there
        stored, line = stored_settings(self.folder)
        if line:
            self.print_line(line)
        self._compare(stored, settings)
        if (work := checkpoint.work_of(self.folder)) is not None:
            self._compare(work["settings"], settings)

    def _compare(self, stored: dict[str, Any], settings: dict[str, Any]) -> None:
        """Refuse settings that would change the result of the run.

        Raises:
            UserError: names them, old -> new.
        """
        changed = changed_settings(self.config, stored, settings)
        if changed:
            changes = ", ".join(changed[:4])
            raise UserError(
                f"{self.folder} was started with other settings ({changes}); "
                "go on with the same, or choose another --out"
            )

    def _track(self, settings: dict[str, Any]) -> None:
        plain = {
            k: v if isinstance(v, int | float | bool) else str(v) for k, v in flat(settings).items()
        }
        self.accelerator.init_trackers("selfsup", config=plain)
        if not self.accelerator.trackers:
            raise UserError(f"--track {self.config.track} is not installed: pip install it")

    def print_line(self, sentence: str) -> None:
        """Print a sentence on the main process, above the progress bar."""
        if self.progress is not None:
            self.progress.print_line(sentence)
        elif self.main:
            print_sentence(sentence)

    def resume(self, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest undamaged checkpoint, if there is one, and return its step."""
        path = None
        if self.main:
            try:
                path = checkpoint.newest(self.folder / "checkpoints", self.print_line)
                newest: Path | UserError | None = path
            except UserError as error:
                newest = error
        else:
            newest = None
        newest = distributed.from_main(newest)
        if isinstance(newest, UserError):
            raise newest
        if newest is None:
            if self.main and (self.folder / "log.jsonl").exists():
                self.print_line("no checkpoint was written yet: the run begins again")
            self._cut_log(0)
            return 0
        step, self._extra = checkpoint.load(newest, method, optimizer)
        if self._extra is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._extra)
        self.print_line(f"going on from step {step}")
        self._cut_log(step)
        return step

    def save(self, step: int, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Begin to write the checkpoint of `step`; training may go on, and change the weights.

        Raises:
            UserError: weights or running statistics are not finite, or the checkpoint before this
                one could not be written; the older ones are kept.
        """
        state = [x for x in method.state_dict().values() if x.is_floating_point()]
        if not all_finite(state):
            raise DivergedError(
                f"weights or running statistics are not finite after step {step}; no checkpoint of "
                "it was written. Try a lower --optim.lr or a longer --optim.warmup"
            )
        if self.main:
            scaler = self.accelerator.scaler
            extra = None if scaler is None else scaler.state_dict()
            self.saving.wait()  # else there would be two copies in memory
            taken = checkpoint.snapshot(step, method, optimizer, extra=extra, work=self.work)
            folder, keep = self.folder / "checkpoints", self.config.keep
            self.saving.begin(partial(checkpoint.save, folder, taken, keep=keep))
        distributed.wait()

    def finish_saving(self) -> None:
        """Wait until the newest checkpoint is on the disk; all processes have to call it.

        Raises:
            UserError: it cannot be written; the older ones are kept.
        """
        self.saving.wait()
        distributed.wait()

    def log(self, step: int, values: dict[str, float], **words: str) -> None:
        """Append figures to log.jsonl, to the tracker, and show them; words to log.jsonl alone."""
        if self.main:
            line = json.dumps({"step": step, "time": round(time.time(), 3), **values, **words})
            try:
                with (self.folder / "log.jsonl").open("a") as log:
                    # a line that was cut by a full disk must not swallow this one
                    log.write(("\n" if self.log_is_torn else "") + line + "\n")
                self.log_is_torn = False
            except OSError as error:
                self.log_is_torn = True
                self._log_is_lost(error)
        if self.config.track:
            try:
                self.accelerator.log(values, step=step)
            except OSError as error:
                self._log_is_lost(error, f"--track {self.config.track}")
        if self.progress is not None:
            self.progress.figures(step, values)

    def _log_is_lost(self, error: OSError, what: str = "log.jsonl") -> None:
        """Say once that figures are lost; training is not."""
        notice(
            f"warning: {what} of {self.folder} cannot be written ({error.strerror}): figures are "
            "lost, and training goes on"
        )

    def past_reports(self, count: int) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return the first line of the log with signs of health, and the last `count` of them.

        None and no lines, if the run only begins.
        """
        reports = self.lines_with("std")
        return (reports[0] if reports else None, reports[-count:])

    def lines_with(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of the log with a figure of that name, the same on every process."""
        file = self.folder / "log.jsonl"
        lines = read_steps(file) if self.main else iter(())
        return distributed.from_main([line for line in lines if name in line])

    def _cut_log(self, step: int) -> None:
        """Drop lines of steps that will be repeated, and lines that a crash damaged."""
        file = self.folder / "log.jsonl"
        if not self.main or not file.exists():
            return
        lines = [json.dumps(line) + "\n" for line in read_steps(file) if line["step"] <= step]
        try:
            write_whole(file, "".join(lines))
        except OSError as error:
            self._log_is_lost(error)

    @contextlib.contextmanager
    def watch(self, total: int, start: int) -> Iterator[TrainProgress]:
        """Show progress while the block runs."""
        self.progress = TrainProgress(total, start, shown=self.main)
        try:
            yield self.progress
        finally:
            self.progress.close()
            self.progress = None
            doing("finishing the run")

    def report_bad(self, bad: dict[str, str], total: int) -> None:
        """Collect every process's unreadable images, list them, and stop if there are too many.

        Raises:
            UserError: they are more than the fraction --max-bad.
        """
        of_all = {k: v for reasons in distributed.gather_objects(bad) for k, v in reasons.items()}
        bad.update(of_all)
        if not of_all:
            return
        file = self.folder / "bad_images.csv"
        if self.main:
            try:
                with written_whole(file) as out:
                    writer = csv.writer(out)
                    writer.writerow(["path", "reason"])
                    writer.writerows(sorted(of_all.items()))
            except OSError as error:
                self._log_is_lost(error, "bad_images.csv")
        fraction = len(of_all) / total
        if fraction > self.config.max_bad:
            raise UnusableError(
                f"{len(of_all)} of {total} images cannot be read ({fraction:.1%}), more than "
                f"--max-bad {self.config.max_bad:.1%}; {file} lists them"
            )
