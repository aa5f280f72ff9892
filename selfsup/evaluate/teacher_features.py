"""The teacher of a distillation: opened once, recorded in the run, and asked for its features.

Shape letters: e width of the teacher.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsup.config import DistilConfig, EncoderConfig, InitConfig, TrainConfig, ViewsConfig
from selfsup.core.distributed import from_main, wait
from selfsup.core.errors import UserError, require
from selfsup.data.open import training_source
from selfsup.data.sources import Source, hash_names, sample
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.evaluation_view import crop_of
from selfsup.encoders.start import open_start
from selfsup.encoders.weights import fingerprint
from selfsup.evaluate.feature_store import stored_features
from selfsup.evaluate.features import embed_chunks
from selfsup.methods.distil import LiveTeacher, StoredFeatures
from selfsup.training import checkpoint
from selfsup.training.run import Run

FORMAT = 1  # of the facts that stored features depend on
COMPARED_IMAGES = 128
"""Images, evenly spread, whose pixels are among these facts; of the others the names are."""
SAMPLED_IMAGES = 1024
"""Of the mean of a teacher whose features are not stored."""


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
    try:
        start = open_start(InitConfig(init=text), EncoderConfig())
    except UserError as error:  # it speaks of --init, and of this one nothing was said
        raise UserError(str(error).replace("--init ", "--method.teacher ")) from None
    return start.encoder, start.views


def prepare_teacher(
    run: Run, config: TrainConfig, method: DistilConfig, teacher: tuple[Encoder, ViewsConfig]
) -> StoredFeatures | LiveTeacher:
    """Compute or find the features of a teacher for the images of a run, or let it see its views.

    Random states are left as they were. The teacher is recorded in the run folder.

    Raises:
        UserError: the run began with another teacher, channels differ, or features cannot be
            stored.
    """
    encoder, views = teacher
    encoder.eval().requires_grad_(False)
    require(
        views.channels == config.views.channels,
        f"the teacher takes images of {views.channels} channels, and --views.mean has "
        f"{config.views.channels}",
    )
    digest = _same_teacher(run, encoder, method.teacher)
    source = training_source(config)
    if method.targets == "live":
        mean = _sampled_mean(run, encoder, views, source) if method.centre else None
        return LiveTeacher(encoder, views, student=config.views, images=len(source), mean=mean)
    facts = {
        "format": FORMAT,
        "teacher": digest,
        "pooling": f"{type(encoder.model).__name__} "
        + " ".join(str(getattr(encoder.model, "global_pool", "")).split()),
        "width": encoder.dim,
        "images": len(source),
        "digest": from_main(_images_digest(source) if run.main else ""),
        "precision": method.precision,
        "view": [views.size, views.resampling, crop_of(views), views.squash, *views.normalization],
    }
    folder = Path(method.cache) if method.cache else run.folder
    rows, mean = stored_features(run, encoder, views, source, folder=folder, facts=facts)
    return StoredFeatures(rows, mean if method.centre else None)


def _same_teacher(run: Run, encoder: Encoder, name: str) -> str:
    """Return the teacher's fingerprint, and record it in the run folder.

    Raises:
        UserError: the run has checkpoints, and began with another one.
    """
    digest = fingerprint(encoder.model)
    file = run.folder / "teacher.json"
    if checkpoint.any_in(run.folder) and file.is_file():
        began = json.loads(file.read_text())["sha256"]
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
    """Mean of the teacher's features of `SAMPLED_IMAGES` whole images, evenly spread. [e]."""
    mean: Tensor | None = None
    if run.main:
        every = range(0, len(source), max(1, len(source) // SAMPLED_IMAGES))
        chunks = [every[i : i + 256] for i in range(0, len(every), 256)]
        device = run.accelerator.device
        rows = embed_chunks(encoder.to(device), source, chunks, views, device=device)
        mean = torch.cat([features for _, features, _ in rows]).double().mean(0).float()
    mean = from_main(mean)
    assert mean is not None
    return mean
