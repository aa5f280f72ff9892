"""The parts of a report that need the run's images and its encoder."""

from pathlib import Path
from typing import Any

import torch

from selfsup.augment.draws import draw
from selfsup.config import TrainConfig
from selfsup.core.cli import from_file
from selfsup.core.errors import UserError
from selfsup.data.loader import Batches
from selfsup.data.open import open_source, training_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.subset import random_subset
from selfsup.encoders.encoder import load
from selfsup.evaluate.features import extract
from selfsup.report.embeddings import look, sections
from selfsup.report.page import heading, paragraph, write_page
from selfsup.report.run import Files, read_run, report
from selfsup.report.views import rows_of_views
from selfsup.training.run import Run

PICTURES = 4  # images whose views are shown


def looked_at(
    run: Files,
    *,
    data: str = "",
    split: str = "",
    labels: str = "label",
    most: int = 1000,
    tsne: bool = False,
    seed: int = 0,
) -> list[str]:
    """Views as the method saw them, and what the embeddings show.

    What cannot be shown, because the images or the encoder are not there, is told instead.
    """
    parts = [heading("Views as the method saw them")]
    try:
        parts += views_of_last_step(run)
    except UserError as error:
        parts.append(paragraph(f"They cannot be drawn again: {error}."))
    try:
        parts += _embedded(run, (data, split, labels), most=most, tsne=tsne, seed=seed)
    except UserError as error:
        parts += [heading("Images and their neighbours"), paragraph(f"Not shown: {error}.")]
    return parts


def views_of_last_step(run: Files) -> list[str]:
    """Drawn again from the step and the seed, for a few images.

    Raises:
        UserError: the images cannot be opened, or the settings cannot be read.
    """
    config = from_file(TrainConfig, run.folder / "config.yaml")
    views = config.views
    source = training_source(config)
    step = max((row["step"] for row in run.log), default=1) - 1
    batch = min(len(source), PICTURES)
    sampler = ShuffleSampler(len(source), batch=batch, seed=config.seed)

    def drawn(n: int, *, step: int) -> Any:
        return draw(views, n, seed=config.seed, step=step)

    batches = Batches(source, sampler, views, draw=drawn, world=(0, 1))
    told = f"Images drawn at random, with draws of step {step + 1} of {config.data}."
    return [paragraph(told), *rows_of_views(source, batches[step], views, images=PICTURES)]


def _embedded(
    run: Files, of: tuple[str, str, str], *, most: int, tsne: bool, seed: int
) -> list[str]:
    """Neighbours, worst queries, doubtful labels and a map of some images."""
    data, split, labels = of
    probe = run.config.get("probe") or {}
    if not data:
        data = str(probe.get("data") or run.config.get("data", ""))
        labels = str((probe if probe.get("data") else run.config).get("labels", "label"))
        split = "" if probe.get("data") else str(run.config.get("split", ""))
    encoder, views = load(run.folder)
    source = random_subset(
        open_source(data, split=split, labels=labels, channels=views.channels), most, seed=seed
    )
    device = torch.device("cpu")
    found = extract(encoder, source, views, device=device, workers=0, part=(0, 1))
    if len(found.x) < 3:
        raise UserError(f"{data} holds {len(found.x)} images; there are no neighbours to show")
    return sections(look(source, found), seed=seed, tsne=tsne)


def write_report(folder: Path) -> Path:
    """Write the report.html of a run, with what can be drawn within seconds."""
    run = read_run(folder)
    out = folder / "report.html"
    write_page(out, report([run], looked_at(run)))
    return out


def report_finished(run: Run) -> None:
    """Write the report of a run that is whole, on the main process, if its settings want one.

    The run is done whatever happens here: an error is printed as a warning.
    """
    if not run.main or not run.config.report:
        return
    try:
        run.print_line(f"report in {write_report(run.folder)}")
    except Exception as error:
        first = str(error).split("\n")[0]
        run.print_line(
            f"warning: the run is whole, but its report failed ({type(error).__name__}: {first}); "
            f"try again with: selfsup report {run.folder}"
        )
