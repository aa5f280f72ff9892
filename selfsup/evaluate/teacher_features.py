"""The teacher of a distillation: opened once, recorded in the run, and asked for its features.

Shape letters: n images, t width of the teacher, e number of directions.
"""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from selfsup.config import (
    DistilConfig,
    EncoderConfig,
    FinetuneConfig,
    InitConfig,
    RankingDistilConfig,
    TeacherFeaturesConfig,
    ViewsConfig,
)
from selfsup.core.distributed import from_main, wait
from selfsup.core.errors import flags_renamed, require
from selfsup.core.json_files import read_json
from selfsup.data.sources import Source, hash_names, sample
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.evaluation_view import crop_of
from selfsup.encoders.start import open_start
from selfsup.encoders.weights import describe_network, fingerprint
from selfsup.evaluate.feature_store import stored_features
from selfsup.evaluate.features import embed_chunks
from selfsup.methods.distil import LiveTeacher, StoredFeatures
from selfsup.methods.distilled_ranking import DistilledRanking
from selfsup.methods.method import Method, OneView
from selfsup.training import checkpoint
from selfsup.training.finetune import labelled
from selfsup.training.run import Run

FORMAT = 1  # of the facts that stored features depend on
COMPARED_IMAGES = 128
"""Images, evenly spread, whose pixels are among these facts; of the others the names are."""
SAMPLED_IMAGES = 1024
"""Of the mean of a teacher whose features are not stored, and of principal directions."""


def open_teacher(text: str) -> tuple[Encoder, ViewsConfig]:
    """Open a teacher and its own evaluation view: size, interpolation and normalisation.

    Args:
        text: whatever --init takes: a run, a bundle, a folder that timm loads, a file of weights,
            timm:NAME or hf-hub:NAME.

    Raises:
        UserError: there is no such encoder, or it has no weights.
    """
    require(
        bool(text),
        "distillation needs a teacher: --method.teacher takes a run, a bundle, a folder that timm "
        "loads, a file of weights, timm:NAME or hf-hub:NAME",
    )
    with flags_renamed("--init ", "--method.teacher "):  # of --init nothing was said
        start = open_start(InitConfig(init=text), EncoderConfig())
    return start.encoder, start.views


def prepare_teacher(
    run: Run,
    source: Source,
    settings: TeacherFeaturesConfig,
    teacher: tuple[Encoder, ViewsConfig],
) -> StoredFeatures | LiveTeacher:
    """Compute or find the features of a teacher for the images of a run, or let it see its views.

    Random states are left as they were. The teacher is recorded in the run folder.

    Args:
        run: whose batches have positions in `source`.
        source: the images of training.
        settings: of the features.
        teacher: with its evaluation view, from `open_teacher`.

    Raises:
        UserError: the run began with another teacher, channels differ, or features cannot be
            stored.
    """
    encoder, views = teacher
    encoder.eval().requires_grad_(False)
    student = run.config.views
    require(
        views.channels == student.channels,
        f"the teacher takes images of {views.channels} channels, and --views.mean has "
        f"{student.channels}",
    )
    digest = _same_teacher(run, encoder, settings.teacher)
    targets = (
        _live(run, source, settings, teacher)
        if settings.targets == "live"
        else _stored(run, source, settings, teacher, digest)
    )
    if isinstance(settings, DistilConfig):
        targets.directions = principal_directions(run, targets, source, settings.width)
    return targets


def _live(
    run: Run,
    source: Source,
    settings: TeacherFeaturesConfig,
    teacher: tuple[Encoder, ViewsConfig],
) -> LiveTeacher:
    """Let the teacher see the student's views."""
    mean = _sampled_mean(run, *teacher, source) if settings.centre else None
    return LiveTeacher(*teacher, student=run.config.views, images=len(source), mean=mean)


def _stored(
    run: Run,
    source: Source,
    settings: TeacherFeaturesConfig,
    teacher: tuple[Encoder, ViewsConfig],
    digest: str,
) -> StoredFeatures:
    """Compute the features of all images, or find those that are stored."""
    encoder, views = teacher
    facts = {
        "format": FORMAT,
        "teacher": digest,
        "pooling": describe_network(encoder.model),
        "width": encoder.dim,
        "images": len(source),
        "digest": from_main(_images_digest(source) if run.main else ""),
        "precision": settings.precision,
        "view": [views.size, views.resampling, crop_of(views), views.squash, *views.normalization],
    }
    folder = Path(settings.cache) if settings.cache else run.folder
    rows, mean = stored_features(run, encoder, views, source, folder=folder, facts=facts)
    return StoredFeatures(rows, mean if settings.centre else None)


def principal_directions(
    run: Run, targets: StoredFeatures | LiveTeacher, source: Source, width: int
) -> Tensor | None:
    """Compute the directions in which the teacher's features of whole images vary most. [t, e].

    Of `SAMPLED_IMAGES` images or more, evenly spread; less their mean, if the targets subtract one.

    Args:
        run: for its device.
        targets: from `prepare_teacher`.
        source: the images of training.
        width: number of directions.

    Returns:
        Orthonormal columns, as many as there are images where these are fewer; None where the
        teacher has no more than `width` features or 0 is asked.

    Raises:
        UserError: `width` is below 0.
    """
    require(width >= 0, f"--method.width must be 0 (all) or more, not {width}")
    if not width or targets.dim <= width:
        return None
    directions: Tensor | None = None
    if run.main:
        every = _evenly_spread(source, max(SAMPLED_IMAGES, 4 * width))
        if isinstance(targets, StoredFeatures):
            rows = targets.of_images(torch.tensor(every), torch.zeros(0))
        else:
            rows = _embedded(run, targets.encoder, targets.views, source, every) - targets.mean
        _, _, found = randomized_svd(rows.numpy(), width, random_state=0)
        directions = torch.from_numpy(found.T.copy())
    return from_main(directions)


def with_teacher(run: Run, config: FinetuneConfig, ranking: Method[OneView]) -> Method:
    """Add the distillation of `config.distil` to a ranking method; without a teacher, return it.

    The weights of the ranking method are those that it has without a teacher.

    Raises:
        UserError: as `open_teacher` and `prepare_teacher`; or there are settings and no teacher.
    """
    settings = config.distil
    if not settings.teacher:
        _refuse_without_teacher(settings)
        return ranking
    source = labelled(config).trained
    with torch.random.fork_rng(devices=[]), flags_renamed("--method.", "--distil."):
        targets = prepare_teacher(run, source, settings, open_teacher(settings.teacher))
    return DistilledRanking(ranking, settings, targets)


def _refuse_without_teacher(settings: RankingDistilConfig) -> None:
    """Raise a UserError if a setting of distillation was changed though there is none."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        require(
            value == field.default,
            f"--distil.{field.name.replace('_', '-')} {value} has no effect without a teacher: "
            "give --distil.teacher",
        )


def _same_teacher(run: Run, encoder: Encoder, name: str) -> str:
    """Return the teacher's fingerprint, and record it in the run folder.

    Raises:
        UserError: the run has checkpoints, and began with another one.
    """
    digest = fingerprint(encoder.model)
    file = run.folder / "teacher.json"
    if checkpoint.any_in(run.folder) and file.is_file():
        began = read_json(file)["sha256"]
        require(
            began == digest,
            f"{run.folder} began with a teacher whose sha256 is {began[:12]}, and that of {name} "
            f"is {digest[:12]}; go on with the first one, or choose another --out",
        )
    wait()  # all have read it before it is written
    if run.main:
        file.write_text(json.dumps({"teacher": name, "sha256": digest}, indent=2) + "\n")
    return digest


def _images_digest(source: Source) -> str:
    """Hash the names of all images, and the pixels of some."""
    digest = hash_names(source)
    for pixels in sample(source, COMPARED_IMAGES):
        digest.update(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _sampled_mean(run: Run, encoder: Encoder, views: ViewsConfig, source: Source) -> Tensor:
    """Mean of the teacher's features of `SAMPLED_IMAGES` whole images, evenly spread. [t]."""
    mean: Tensor | None = None
    if run.main:
        rows = _embedded(run, encoder, views, source, _evenly_spread(source, SAMPLED_IMAGES))
        mean = rows.double().mean(0).float()
    mean = from_main(mean)
    assert mean is not None
    return mean


def _evenly_spread(source: Source, most: int) -> range:
    """Positions of `most` images, or up to twice as many, evenly spread."""
    return range(0, len(source), max(1, len(source) // most))


def _embedded(
    run: Run, encoder: Encoder, views: ViewsConfig, source: Source, every: range
) -> Tensor:
    """The teacher's features of whole images. [n, t]."""
    chunks = [every[i : i + 256] for i in range(0, len(every), 256)]
    device = run.accelerator.device
    rows = embed_chunks(encoder.to(device), source, chunks, views, device=device)
    return torch.cat([chunk.features for chunk in rows])
