"""The teacher of a distillation: opened once, its features of all images computed once.

FOLDER/teacher-1a2b3c4d5e6f7a8b/
    features.npy     [n, e], mapped into memory; zeros for an image that cannot be read
    manifest.json    of which teacher, images and view, and the sha256 of the file

The name is a hash of what the features depend on, so that another teacher, other images or another
view have a folder of their own. It is written to another name and renamed when it is whole.

Shape letters: n images, e width of the teacher.
"""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsup.config import DistilConfig, TrainConfig, ViewsConfig
from selfsup.core.distributed import from_main, gather_objects, local_slice, wait, world
from selfsup.core.errors import require
from selfsup.data.open import training_source
from selfsup.data.sources import Source, sample
from selfsup.encoders.encoder import Encoder, load
from selfsup.encoders.evaluation_view import crop_of
from selfsup.encoders.weights import fingerprint
from selfsup.evaluate.features import chunks_of, embed_chunks
from selfsup.methods.distil import LiveTeacher, StoredFeatures
from selfsup.training.run import Run

FORMAT = 1  # of the folder
FEATURES, MANIFEST = "features.npy", "manifest.json"
COMPARED_IMAGES = 128
"""Images, evenly spread, whose pixels are part of the hash; of the others the names are."""
ROUNDING = 2e-3
"""Largest error of a row on disk, as a fraction of its length: float16 has three digits."""


def open_teacher(text: str) -> tuple[Encoder, ViewsConfig]:
    """Open a teacher and its own evaluation view: size, interpolation and normalisation.

    Args:
        text: a run, a bundle or a folder that timm loads.

    Raises:
        UserError: there is no such encoder, or it has no weights.
    """
    require(
        bool(text),
        "distillation needs a teacher: --method.teacher takes a run, a bundle or a folder that "
        "timm loads",
    )
    require(
        Path(text).is_dir(),
        f"--method.teacher {text} is no folder: it takes a run, a bundle or a folder that timm "
        "loads",
    )
    return load(Path(text))


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
    require(
        views.channels == config.views.channels,
        f"the teacher takes images of {views.channels} channels, and --views.mean has "
        f"{config.views.channels}",
    )
    digest = _same_teacher(run, encoder, method.teacher)
    source = training_source(config)
    if method.targets == "live":
        return LiveTeacher(encoder, views, student=config.views, images=len(source))
    facts = {
        "format": FORMAT,
        "teacher": digest,
        "pooling": " ".join(str(getattr(encoder.model, "global_pool", "")).split()),
        "width": encoder.dim,
        "images": len(source),
        "digest": from_main(_images_digest(source) if run.main else ""),
        "precision": method.precision,
        "view": [views.size, views.interpolation, *crop_of(views), views.mean, views.std],
    }
    folder = Path(method.cache) if method.cache else run.folder
    return StoredFeatures(stored_features(run, encoder, views, source, folder=folder, facts=facts))


def _same_teacher(run: Run, encoder: Encoder, name: str) -> str:
    """Return the teacher's fingerprint, and record it in the run folder.

    Raises:
        UserError: the run has checkpoints, and began with another one.
    """
    digest = fingerprint(encoder.model)
    file = run.folder / "teacher.json"
    if any((run.folder / "checkpoints").glob("step-*")) and file.is_file():
        began = json.loads(file.read_text())["sha256"]
        require(
            began == digest,
            f"{run.folder} began with a teacher whose sha256 is {began[:12]}, and that of {name} "
            f"is {digest[:12]}; go on with the first one, or choose another --out",
        )
    wait()
    if run.main:
        file.write_text(json.dumps({"teacher": name, "sha256": digest}, indent=2) + "\n")
    return digest


def _images_digest(source: Source) -> str:
    """Hash the names of all images, and the pixels of some."""
    digest = hashlib.sha256()
    for position in range(len(source)):
        digest.update(source.name(position).encode("utf-8", "surrogateescape") + b"\0")
    for pixels in sample(source, COMPARED_IMAGES):
        digest.update(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def stored_features(
    run: Run,
    encoder: Encoder,
    views: ViewsConfig,
    source: Source,
    *,
    folder: Path,
    facts: dict[str, Any],
) -> np.ndarray:
    """Map the features of every image, computing them if `folder` has none that are undamaged.

    Args:
        run: for its device, its reader processes and its sentences.
        encoder: the teacher.
        views: its evaluation view.
        source: the images.
        folder: where the features of several teachers may lie.
        facts: all that the features depend on.

    Returns:
        [n, e], in the type `facts["precision"]`, read from disk where it is needed.

    Raises:
        UserError: `folder` has no room or is something else, or features are not finite.
    """
    require(not folder.is_file(), f"--method.cache {folder} is a file; give a folder")
    require(
        not (folder / FEATURES).exists(),
        f"--method.cache {folder} holds the features of one teacher for one data set; give the "
        f"folder around it, {folder.parent}",
    )
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / f"teacher-{key}"
    damage = from_main(_damage(place) if run.main else None)
    if damage is not None:
        if damage:
            run.print_line(f"{place} is computed again: {damage}")
        began = time.monotonic()
        run.print_line(f"the teacher embeds {len(source)} images, once, into {place}")
        bad = _write(run, encoder, views, source, place=place, facts=facts)
        unread = f", without {bad} that cannot be read" if bad else ""
        run.print_line(f"it took {time.monotonic() - began:.0f} s{unread}")
    rows: np.ndarray = np.load(place / FEATURES, mmap_mode="r")
    return rows


def _damage(place: Path) -> str | None:
    """Describe why stored features cannot be used: "" if there are none, None if they are whole."""
    if not place.exists():
        return ""
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        actual = _fingerprint(place / FEATURES)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError):
        return f"{MANIFEST} cannot be read"
    if not isinstance(manifest, dict) or manifest.get("file") != actual:
        return f"{FEATURES} has changed since it was written"
    return None


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _write(
    run: Run,
    encoder: Encoder,
    views: ViewsConfig,
    source: Source,
    *,
    place: Path,
    facts: dict[str, Any],
) -> int:
    """Compute the features, each process its chunks, and return how many images are unreadable.

    Raises:
        UserError: there is no room, features are not finite, or no image can be read.
    """
    partial = place.with_name(f".{place.name}.part")
    problem = from_main(_make_file(partial, facts) if run.main else "")
    require(not problem, problem)
    rows = np.load(partial / FEATURES, mmap_mode="r+")
    chunks = chunks_of(source)
    local = chunks[local_slice(len(chunks), *world())]
    device = run.accelerator.device
    encoder.to(device).requires_grad_(False)
    bad, problem = 0, ""
    for chunk, features, unreadable in embed_chunks(
        encoder, source, local, views, device=device, workers=run.config.workers
    ):
        here = [i for i, position in enumerate(chunk) if position in unreadable]
        features = features.clone()
        features[here] = 0
        bad += len(here)
        problem = problem or _rounding_problem(features, rows.dtype)
        rows[chunk.start : chunk.stop] = features.numpy()
    rows.flush()
    encoder.to("cpu")
    problems = [sentence for sentence in gather_objects(problem) if sentence]
    bad = sum(gather_objects(bad))  # every process is here once all rows are written
    if bad == len(source):
        problems.append(f"none of the {len(source)} images can be read")
    if run.main and not problems:
        manifest = {"facts": facts, "file": _fingerprint(partial / FEATURES), "unreadable": bad}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    if run.main and problems:
        shutil.rmtree(partial, ignore_errors=True)
    wait()
    require(not problems, "; ".join(problems[:1]))
    return bad


def _make_file(partial: Path, facts: dict[str, Any]) -> str:
    """Make the file for all rows, which other processes open; say why if it cannot be made."""
    shape, kind = (facts["images"], facts["width"]), np.dtype(facts["precision"])
    needed = shape[0] * shape[1] * kind.itemsize
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        free = shutil.disk_usage(partial).free
        if needed > free:  # a mapped file that outgrows the disk ends the process
            return (
                f"the teacher's features need {needed / 1e9:.1f} GB, and {partial.parent} has "
                f"{free / 1e9:.1f} GB free; give --method.cache elsewhere, or --method.targets live"
            )
        np.lib.format.open_memmap(partial / FEATURES, mode="w+", dtype=kind, shape=shape).flush()
    except OSError as error:
        return f"the teacher's features cannot be written to {partial.parent}: {error.strerror}"
    return ""


def _rounding_problem(features: torch.Tensor, kind: np.dtype) -> str:
    """Describe features that are not finite, or that the type on disk does not hold."""
    if not features.isfinite().all():
        return "the teacher's features are not finite: its weights are broken"
    stored = torch.from_numpy(features.numpy().astype(kind)).to(features.dtype)
    if ((stored - features).norm(dim=1) > ROUNDING * features.norm(dim=1)).any():
        return (
            f"the teacher's features, up to {features.abs().max():.2g}, do not fit {kind}; give "
            "--method.precision float32"
        )
    return ""
