"""The sections of a report that need the run's images and its encoder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from selfsup.config import TrainConfig
from selfsup.core.cli import from_file
from selfsup.core.errors import UserError, require
from selfsup.core.live import doing
from selfsup.core.progress import bar
from selfsup.data.open import open_source, training_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.subset import labelled_images, random_subset
from selfsup.encoders.encoder import load
from selfsup.evaluate.features import extract
from selfsup.report.embeddings import sections, with_neighbours
from selfsup.report.page import heading, paragraph, write_page
from selfsup.report.run import Files, read_run, report
from selfsup.report.views import rows_of_views
from selfsup.training.pretrain import local_batches
from selfsup.training.run import Run

PICTURES = 4  # images whose views are shown


def image_sections(
    run: Files,
    *,
    data: str = "",
    split: str = "",
    labels: str = "label",
    most: int = 1000,
    tsne: bool = False,
    seed: int = 0,
    config: TrainConfig | None = None,
    suspects: Path,
) -> list[str]:
    """Lay out views as the method saw them, neighbours, worst queries and a map.

    Suspected label errors are written to `suspects`, if the images have labels. Where the images
    or the encoder are missing, a sentence says so. `config` are the run's settings if they are at
    hand: images in memory are in no file.
    """
    doing("drawing the views of the last step")
    parts = [heading("Views as the method saw them")]
    try:
        parts += views_of_last_step(run, config)
    except UserError as error:
        parts.append(paragraph(f"They cannot be drawn again: {error}."))
    try:
        settings = run.config if config is None else asdict(config)
        images = (data, split, labels) if data else _images_of(settings)
        parts += _neighbours_and_map(
            run, images, most=most, tsne=tsne, seed=seed, suspects=suspects
        )
    except UserError as error:
        parts += [heading("Images and their neighbours"), paragraph(f"Not shown: {error}.")]
    return parts


def _images_of(settings: dict[str, Any]) -> tuple[str, str, str]:
    """Return data, split and labels of the probe if there is one, else of training."""
    probe = settings.get("probe") or {}
    if probe.get("data"):
        return probe["data"], "", str(probe.get("labels", "label"))
    labels = str(settings.get("labels", "label"))
    return settings.get("data", ""), str(settings.get("split", "")), labels


def views_of_last_step(run: Files, config: TrainConfig | None = None) -> list[str]:
    """Draw the views of the last step again, from the step and the seed, for a few images.

    Raises:
        UserError: the images cannot be opened, or the settings cannot be read.
    """
    config = config or from_file(TrainConfig, run.folder / "config.yaml")
    views = config.views
    source = training_source(config)
    step = max((row["step"] for row in run.log), default=1) - 1
    batch = min(len(source), PICTURES)
    sampler = ShuffleSampler(len(source), batch=batch, seed=config.seed)
    batches = local_batches(source, sampler, views, config.seed, whole=True)
    caption = f"Images drawn at random, with draws of step {step + 1} of {config.data}."
    return [paragraph(caption), *rows_of_views(source, batches[step], views, images=PICTURES)]


def _neighbours_and_map(
    run: Files,
    images: tuple[str, str, str],
    *,
    most: int,
    tsne: bool,
    seed: int,
    suspects: Path,
) -> list[str]:
    """Lay out neighbours, worst queries, suspected label errors and a map of some images."""
    data, split, labels = images
    encoder, views = load(run.folder)
    everything = open_source(data, split=split, labels=labels, channels=views.channels)
    if everything.labels is not None:
        everything = labelled_images(everything, data)
    source = random_subset(everything, most, seed=seed)
    device = torch.device("cpu")
    with bar("report: features", len(source)) as advance:
        features = extract(
            encoder, source, views, device=device, workers=0, part=(0, 1), progress=advance
        )
    doing("laying out neighbours and the map")
    if len(features.x) < 3:
        raise UserError(f"{data} holds {len(features.x)} images; there are no neighbours to show")
    embedded = with_neighbours(source, features)
    parts = sections(embedded, seed=seed, tsne=tsne, suspects=suspects)
    if len(source) == len(everything):
        return parts
    chosen = f"{len(source)} of {len(everything)} images, drawn at random (selfsup report --most)."
    return [paragraph(f"The sections below are of {chosen}"), *parts]


def write_report(
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    data: str = "",
    split: str = "",
    labels: str = "label",
    most: int = 1000,
    tsne: bool = False,
    seed: int = 0,
    config: TrainConfig | None = None,
) -> Path:
    """Write one page on a run, or on several side by side (without sections of images).

    Args:
        folders: run folders.
        out: the page; by default report.html in the run's folder, or here for several.
        data: images to show, labelled or not; by default those of the probe, else of training.
        split: only the manifest's rows with this `split`.
        labels: the manifest's column with the labels.
        most: images that are embedded, at most.
        tsne: lay the map out by t-SNE, which takes a minute; else by PCA.
        seed: of the choice of images.
        config: settings of the one run, if they are at hand.

    Raises:
        UserError: a setting does not fit, a folder is no run, or the page cannot be written.
    """
    require(len(folders) > 0, "give a run folder")
    require(most > 1, f"--most must be above 1, not {most}")
    runs = [read_run(folder) for folder in folders]
    if out is None:
        out = runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html")
    images: list[str] = []
    if len(runs) == 1:
        images = image_sections(
            runs[0],
            data=data,
            split=split,
            labels=labels,
            most=most,
            tsne=tsne,
            seed=seed,
            config=config,
            suspects=out.with_name(f"{out.stem}_label_suspects.csv"),
        )
    doing(f"writing {out}")
    write_page(out, report(runs, images))
    return out


def report_finished(run: Run) -> None:
    """Write the report of a finished run, on the main process, if its settings ask for one.

    An error is printed as a warning: the run itself is finished.
    """
    if not run.main or not run.config.report:
        return
    try:
        run.print_line(f"report in {write_report([run.folder], config=run.config)}")
    except Exception as error:
        sentence = str(error).split("\n")[0]
        run.print_line(
            "warning: the run is finished, but its report failed "
            f"({type(error).__name__}: {sentence}); try again with: selfsup report {run.folder}"
        )
