"""Validation of fine-tuning: probes on the way, the best encoder, when to stop, what to export.

The run folder gets, besides lines of the log,

best/step-00000600/   the best encoder so far, for timm; of earlier ones those that a run needs
                      that goes on from an older checkpoint
validation.json       what was exported, and why
"""

import copy
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path

from selfsup.config import FinetuneConfig
from selfsup.core import distributed
from selfsup.core.errors import UserError, require
from selfsup.core.progress import bar
from selfsup.data.held_out import ENOUGH, searchable
from selfsup.data.open import open_source
from selfsup.data.sources import Source
from selfsup.data.subset import searchable_images
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.encoder import export as export_encoder
from selfsup.encoders.lora import without_lora
from selfsup.encoders.model_card import refresh_card
from selfsup.evaluate.curve import (
    BARE,
    KEPT,
    KNN,
    MAP,
    RECALL,
    Outcome,
    Probe,
    best_probe,
    probes_since_best,
)
from selfsup.evaluate.features import extract
from selfsup.evaluate.model import search_device
from selfsup.evaluate.results import write_record
from selfsup.evaluate.retrieval_figures import retrieval
from selfsup.evaluate.votes import knn_predict
from selfsup.methods.method import Method
from selfsup.search.gallery import Queries
from selfsup.training import checkpoint
from selfsup.training.finetune import labelled, sampler_and_length
from selfsup.training.pretrain import export
from selfsup.training.run import Run
from selfsup.training.same_work import HELD_OUT

PROBES = 10
"""In a run, where no interval is given."""
RECORD = "validation.json"


class Validation:
    """Probes of one run. Training is not changed by them; every process calls it alike."""

    def __init__(self, run: Run, config: FinetuneConfig) -> None:
        """Open the images to validate on, and those of `config.probe.keep`.

        Raises:
            UserError: they have no labels or too few classes, or a setting does not fit.
        """
        self.run, self.config = run, config
        probe = config.probe
        require(probe.every >= 0, f"--probe.every must be 0 or more, not {probe.every}")
        require(probe.k > 0, f"--probe.k must be above 0, not {probe.k}")
        require(config.patience >= 0, f"--patience must be 0 or more, not {config.patience}")
        images = labelled(config)
        _, self.total = sampler_and_length(config, images.labels)
        self.every = probe.every or -(-self.total // PROBES)
        self.sets: dict[str, Source] = {}
        """By the beginning of their figures' names in the log."""
        self.name = ""
        if probe.data:
            self.sets[""] = _open(config, "data", probe.data, probe.labels)
            self.name = Path(probe.data).name
        elif images.held_out is not None:
            self.sets[""] = images.held_out
            self.name = f"{len(images.held_out.classes)} held-out classes"
        else:
            self._say_why_not(len(searchable(images.labels)))
        if probe.keep:
            self.sets[KEPT] = _open(config, "keep", probe.keep, probe.keep_labels)
        kept = f"--probe.keep {probe.keep}"
        validated = f"--probe.data {probe.data}" if probe.data else HELD_OUT
        run.others |= {kept if name else validated: images for name, images in self.sets.items()}
        self.probes: list[Probe] | None = None  # read when the log has been cut
        self.step = 0

    def _say_why_not(self, classes: int) -> None:
        """Print why nothing is validated, if that was not the user's choice.

        Raises:
            UserError: the run is to stop by what is not measured.
        """
        few = f"{classes} classes are fewer than {ENOUGH}, of which a tenth would be held out"
        why = f"no validation: {few}" if classes < ENOUGH else "--probe.held-out is 0"
        cure = "give labelled images of other classes with --probe.data"
        require(
            self.config.patience == 0,
            f"--patience {self.config.patience} needs probes, and there are none ({why}): {cure}",
        )
        if classes < ENOUGH:
            self.run.print_line(textwrap.fill(f"{why}; {cure}", 80))

    def __call__(self, step: int, encoder: Encoder) -> bool:
        """Probe if it is time: at the start, at the end and every `every` steps between them.

        Args:
            step: finished ones; also the first of a call, which a killed run may owe a probe.
            encoder: to measure; it is left as it is.

        Returns:
            Whether the run is to stop: --patience probes have not been better than the best.
        """
        self.step = step
        if self.probes is None:
            self.probes = self._logged()
        if self.sets and (step % self.every == 0 or step == self.total):
            self._probe(step, encoder)
        probes, patience = self._with(MAP), self.config.patience
        over = patience > 0 and bool(probes) and probes_since_best(probes) >= patience
        if over and step < self.total:
            self.run.print_line(
                f"stopped at step {step:,} of {self.total:,}: no better MAP@R in {patience} "
                "probes (--patience)"
            )
        return over

    def export(self, method: Method) -> Outcome:
        """Export the best encoder or the last one, which completes the run; say why in a file."""
        if self.probes is None:
            self.probes = self._logged()
        if self.sets:
            self._probe(self.step, method.exported)
        outcome = Outcome(
            self._with(MAP),
            self._with(KEPT + MAP),
            last=self.step,
            total=self.total,
            export=self.config.probe.export,
            images=self.name,
            kept_images=Path(self.config.probe.keep).name,
        )
        instead = None
        if outcome.exported != self.step:
            instead = self._folder(outcome.exported)
            if not distributed.from_main((instead / "config.json").is_file()):
                raise UserError(
                    f"{instead} is missing, which has the best encoder; --probe.export last "
                    "exports that of the last step"
                )
        export(self.run, method, self.config.views, instead=instead)
        if self.run.main:
            record = {**asdict(outcome), "exported": outcome.exported}
            record["sentences"] = outcome.sentences()
            write_record(self.run.folder / RECORD, record)
            refresh_card(self.run.folder)
        return outcome

    def _logged(self) -> list[Probe]:
        lines = {
            line["step"]: line for name in (MAP, KEPT + MAP) for line in self.run.lines_with(name)
        }
        return sorted(lines.values(), key=lambda line: line["step"])

    def _with(self, name: str) -> list[Probe]:
        return [probe for probe in self.probes or [] if name in probe]

    def _probe(self, step: int, encoder: Encoder) -> None:
        """Measure and log, unless the log has it, and keep the encoder if it is the best."""
        assert self.probes is not None
        measured = step not in [probe["step"] for probe in self.probes]
        if measured:
            encoder.to(self.run.accelerator.device)
            figures = self._measure_all(encoder)
            if step == 0 and self.config.init and encoder.head_is_new:
                bare = copy.deepcopy(encoder)
                bare.model.reset_classifier(0)
                of_features = self._measure_all(bare)
                figures |= {prefix + BARE: of_features[prefix + MAP] for prefix in self.sets}
            figures = distributed.from_main(figures)  # all have to stop at the same step
            self.run.log(step, figures)
            self.probes.append({"step": step, **figures})
        probes = self._with(MAP)
        if probes and best_probe(probes)["step"] == step:
            self._keep(step, encoder, again=measured)

    def _measure_all(self, encoder: Encoder) -> Probe:
        """Measure on every set."""
        return {
            prefix + name: value
            for prefix, source in self.sets.items()
            for name, value in self._measure(encoder, source).items()
        }

    def _measure(self, encoder: Encoder, source: Source) -> Probe:
        """Search each image among all others of the set."""
        views, device = self.config.views, self.run.accelerator.device
        with bar("validation: features", len(source), shown=self.run.main) as advance:
            features = extract(encoder, source, views, device=device, progress=advance)
        queries = Queries(features.x, features.labels).to(search_device(features.x))
        try:
            found = retrieval(queries).figures
        except ValueError as error:
            raise UserError(f"the images to validate on cannot be searched: {error}") from None
        k = self.config.probe.k
        predictions = knn_predict(queries.x, features.labels, k=k, temperature=0.1)
        return {
            MAP: float(found["MAP@R"].mean()),
            RECALL: float(found["Recall@1"].mean()),
            KNN: (predictions == features.labels).float().mean().item(),
        }

    def _folder(self, step: int) -> Path:
        return self.run.folder / "best" / f"step-{step:08d}"

    def _keep(self, step: int, encoder: Encoder, *, again: bool) -> None:
        """Write an encoder as it would be exported, and remove those that are no longer needed.

        One that is there is written `again` if asked: a run that was killed may have left it.
        """
        final = self._folder(step)
        if not self.run.main or ((final / "config.json").is_file() and not again):
            return
        # a copy: writing changes the memory layout of weights for a while
        export_encoder(copy.deepcopy(without_lora(encoder)), final, self.config.views)
        probes = self._with(MAP)
        self.run.saving.wait()  # from each checkpoint the run may go on
        going_on = [s for s in checkpoint.steps_of(self.run.folder) if s >= probes[0]["step"]]
        needed = {best_probe(probes, until=s)["step"] for s in (*going_on, step)}
        for old in checkpoint.own_folders(final.parent):
            if checkpoint.step_of(old) not in needed:
                shutil.rmtree(old)


def _open(config: FinetuneConfig, flag: str, data: str, labels: str) -> Source:
    opened = open_source(data, labels=labels, channels=config.views.channels, cache=config.cache)
    return searchable_images(opened, f"--probe.{flag} {data}")


def print_outcome(run: Run, outcome: Outcome) -> None:
    """Print which encoder was exported and why, at most 80 columns wide."""
    for sentence in outcome.sentences():
        run.print_line(textwrap.fill(sentence, 80))
