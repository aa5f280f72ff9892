"""The sections of a report that need the run's images and its encoder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from selfsup.config import TrainConfig, ViewsConfig
from selfsup.core.cli import from_file
from selfsup.core.errors import UserError, require
from selfsup.core.live import doing
from selfsup.core.paths import check_file
from selfsup.core.progress import bar
from selfsup.data.held_out import hold_out
from selfsup.data.open import is_local, open_source, require_named, training_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import Source
from selfsup.data.subset import only_labelled, random_subset
from selfsup.encoders.encoder import Encoder, load
from selfsup.evaluate.features import extract
from selfsup.report.embeddings import EmbeddedImages, failures, learnt, with_neighbours
from selfsup.report.page import heading, paragraph, side_by_side, write_page
from selfsup.report.run import Files, ImageParts, read_run, report
from selfsup.report.seen import ImageSet, is_seen, measured_on, trained_on
from selfsup.report.views import rows_of_views
from selfsup.training.pretrain import local_batches
from selfsup.training.run import Run

PICTURES = 4  # images whose views are shown


def image_parts(
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
) -> ImageParts:
    """Lay out neighbours, a map, failures, and views as the method saw them.

    Suspected label errors are written to `suspects`, if the images have labels. Where the images
    or the encoder are missing, a sentence says so. `config` are the run's settings if they are at
    hand: images in memory are in no file.
    """
    settings = run.config if config is None else asdict(config)
    doing("drawing the views of the last step")
    views = [heading("Views as the method saw them")]
    try:
        views += views_of_last_step(run, config)
    except UserError as error:
        views.append(paragraph(f"They cannot be drawn again: {error}."))
    try:
        given = ImageSet(data, split, labels) if data else None
        encoder, of_encoder = load(run.folder)
        shown = shown_images(run, settings, given, channels=of_encoder.channels)
        embedded, about = embedded_images(encoder, of_encoder, *shown, most=most, seed=seed)
    except UserError as error:
        return ImageParts([paragraph(f"Not shown: {error}.")], [], views)
    return ImageParts(
        [about, *learnt(embedded, seed=seed, tsne=tsne)],
        [about, *failures(embedded, suspects)],
        views,
    )


def shown_images(
    run: Files, settings: dict[str, Any], given: ImageSet | None, *, channels: int
) -> tuple[Source, str]:
    """Open images to show, of those that training has not seen if there are any.

    They are the given ones, else those of the probe, of an evaluation, the held-out classes, and
    at last those of training.

    Returns:
        The images, and a sentence that says which they are.

    Raises:
        UserError: they cannot be opened.
    """
    seen, probe = trained_on(settings), settings.get("probe") or {}
    if given is None and probe.get("data"):
        require_named(str(probe["data"]))
        given = ImageSet(probe["data"], "", str(probe.get("labels", "label")))
    measured = [images for record in run.records if (images := measured_on(record))]
    new = [x for x in measured if is_local(x.data) and not is_seen(x, seen)]
    images = given or next(iter(new), None)
    if images is not None:
        source = open_source(
            images.data, split=images.split, labels=images.labels, channels=channels
        )
        word = "has seen, too" if is_seen(images, seen) else "has not seen"
        return source, f"These are images of {images}, which training {word}."
    own = ImageSet(settings.get("data", ""), str(settings.get("split") or ""))
    labels = str(settings.get("labels", "label"))
    require_named(own.data)
    source = open_source(own.data, split=own.split, labels=labels, channels=channels)
    fraction = float(probe.get("held_out") or 0)
    if fraction and source.labels is not None:
        _, held = hold_out(only_labelled(source), fraction=fraction, seed=int(settings["seed"]))
        if held is not None:
            count = f"{len(held.classes)} classes"
            return held, f"These are images of {count} that were held out of training."
    return source, (
        "These are images of training itself, so that they look better than new ones would: "
        "selfsup report --data shows others."
    )


def views_of_last_step(run: Files, config: TrainConfig | None = None) -> list[str]:
    """Draw the views of the last step again, from the step and the seed, for a few images.

    Raises:
        UserError: the images cannot be opened, or the settings cannot be read.
    """
    config = config or from_file(TrainConfig, run.folder / "config.yaml")
    views = config.views
    require_named(config.data)
    source = training_source(config)
    step = max((row["step"] for row in run.log), default=1) - 1
    batch = min(len(source), PICTURES)
    sampler = ShuffleSampler(len(source), batch=batch, seed=config.seed)
    batches = local_batches(source, sampler, views, config.seed, whole=True)
    caption = f"Images drawn at random, with draws of step {step + 1} of {config.data}."
    rows = rows_of_views(source, batches[step], views, images=PICTURES)
    return [paragraph(caption), side_by_side(*rows)]


def embedded_images(
    encoder: Encoder, views: ViewsConfig, everything: Source, about: str, *, most: int, seed: int
) -> tuple[EmbeddedImages, str]:
    """Embed images, or `most` of them at random, and find the neighbours of each.

    Returns:
        The embedded images, and a paragraph that says which they are: `about`, and how many.

    Raises:
        UserError: they are fewer than three.
    """
    everything = only_labelled(everything)
    source = random_subset(everything, most, seed=seed)
    device = torch.device("cpu")
    with bar("report: features", len(source)) as advance:
        features = extract(
            encoder, source, views, device=device, workers=0, part=(0, 1), progress=advance
        )
    doing("laying out neighbours and the map")
    if len(features.x) < 3:
        raise UserError(f"there are {len(features.x)} images; none has neighbours to show")
    count = f"All {len(source)} are compared with each other."
    if len(source) < len(everything):
        count = (
            f"{len(source)} of {len(everything)} are compared with each other, drawn at random "
            "(selfsup report --most)."
        )
    return with_neighbours(source, features), paragraph(f"{about} {count}")


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
    title: str = "",
) -> Path:
    """Write one page on a run, or on several side by side (without images).

    Args:
        folders: run folders.
        out: the page; by default report.html in the run's folder, or here for several.
        data: images to show, labelled or not; by default some that training has not seen, of the
            probe, an evaluation or the held-out classes, and where there are none its own.
        split: only the manifest's rows with this `split`.
        labels: the manifest's column with the labels.
        most: images that are embedded, at most.
        tsne: lay the map out by t-SNE, which takes a minute; else by PCA.
        seed: of the choice of images.
        config: settings of the one run, if they are at hand.
        title: of the page; by default the run's name.

    Raises:
        UserError: a setting does not fit, a folder is no run, or the page cannot be written.
    """
    require(len(folders) > 0, "give a run folder")
    require(most > 1, f"--most must be above 1, not {most}")
    if out is not None:
        check_file(out)
    runs = [read_run(folder) for folder in folders]
    if out is None:
        out = runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html")
    images = None
    if len(runs) == 1:
        images = image_parts(
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
    write_page(out, report(runs, images, title=title))
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
