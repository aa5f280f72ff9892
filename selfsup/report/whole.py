"""The parts of a report that need the run's images and its encoder."""

import importlib
from pathlib import Path
from typing import Any

import torch

from selfsup.augment.draws import draw
from selfsup.cli import parse
from selfsup.config import TrainConfig
from selfsup.data.loader import Batches
from selfsup.data.open import open_source, training_source
from selfsup.data.part import part_of
from selfsup.data.samplers import ShuffleSampler
from selfsup.encoder import load
from selfsup.errors import UserError
from selfsup.evaluate.features import extract
from selfsup.report.look import look, sections
from selfsup.report.page import heading, paragraph
from selfsup.report.run import Files, read_run, report
from selfsup.report.views import rows_of_views

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
        UserError: the images cannot be opened, or the settings are of no recipe.
    """
    config = settings_of(run)
    views = config.views
    source = training_source(config)
    step = max((row["step"] for row in run.log), default=1) - 1
    batch = min(len(source), PICTURES)
    sampler = ShuffleSampler(len(source), batch=batch, seed=config.seed)

    def drawn(n: int, *, step: int) -> Any:
        return draw(views, n, seed=config.seed, step=step)

    batches = Batches(source, sampler, views, draw=drawn, part=(0, 1))
    told = f"Images drawn at random, with draws of step {step + 1} of {config.data}."
    return [paragraph(told), *rows_of_views(source, batches[step], views, images=PICTURES)]


def settings_of(run: Files) -> TrainConfig:
    """The run's settings as its recipe's Config.

    Raises:
        UserError: no recipe of ours takes them.
    """
    from selfsup.__main__ import COMMANDS

    file = str(run.folder / "config.yaml")
    for module, _ in COMMANDS.values():
        if "recipes" not in module:
            continue
        try:
            made = parse(importlib.import_module(f"selfsup.{module}").Config, ["--config", file])
        except UserError:
            continue  # of another recipe
        if isinstance(made, TrainConfig):
            return made
    raise UserError(f"{file} is of no recipe that is known here")


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
    source = part_of(
        open_source(data, split=split, labels=labels, channels=views.channels), most, seed=seed
    )
    device = torch.device("cpu")
    found = extract(encoder, source, views, device=device, workers=0, part=(0, 1))
    if len(found.x) < 3:
        raise UserError(f"{data} holds {len(found.x)} images; there are no neighbours to show")
    return sections(look(source, found), seed=seed, tsne=tsne)


def write_report(folder: Path) -> Path:
    """A run's report.html, at its end: what can be drawn within seconds."""
    from selfsup.report.page import write_page

    run = read_run(folder)
    out = folder / "report.html"
    write_page(out, report([run], looked_at(run)))
    return out
