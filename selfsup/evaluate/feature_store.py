"""Features of every image on disk, computed once and mapped into memory.

FOLDER/teacher-1a2b3c4d5e6f7a8b/
    features.npy     [n, e]; zeros for an image that cannot be read
    mean.npy         [e], of the images that can be read
    manifest.json    of which encoder, images and view, and the sha256 of both files

The name is a hash of what the features depend on, so that another teacher, other images or another
view have a folder of their own. It is written to another name and renamed when it is whole.

Shape letters: n images, e width of the features, b images of a chunk.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.config import ViewsConfig
from selfsup.core.distributed import (
    from_main,
    gather_objects,
    local_slice,
    on_main,
    wait,
    world,
)
from selfsup.core.errors import require
from selfsup.core.json_files import read_json
from selfsup.core.live import doing
from selfsup.core.writer import only_writer
from selfsup.data.sources import Source, all_unreadable
from selfsup.encoders.encoder import Encoder
from selfsup.evaluate.features import chunks_of, embed_chunks, rounds_badly
from selfsup.training.checkpoint import fingerprint
from selfsup.training.run import Run

FEATURES, MEAN, MANIFEST = "features.npy", "mean.npy", "manifest.json"
BLOCK_ROWS = 4096  # summed at a time


def stored_features(
    run: Run,
    encoder: Encoder,
    views: ViewsConfig,
    source: Source,
    *,
    folder: Path,
    facts: dict[str, Any],
) -> tuple[np.ndarray, Tensor]:
    """Map the features of every image, computing them if `folder` has none that are undamaged.

    Several processes write one file, each its rows. Random states are left as they were.

    Args:
        run: for its device, its reader processes and its sentences.
        encoder: images to features.
        views: its evaluation view.
        source: the images.
        folder: where the features of several encoders may lie.
        facts: all that the features depend on: JSON with images, width and precision among it.

    Returns:
        [n, e], in the type `facts["precision"]`, read from disk where it is needed; and their mean
        [e], float32.

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
        doing("the teacher embeds the images")
        began = time.monotonic()
        with _written_alone(run, place):
            run.print_line(f"the teacher embeds {len(source)} images, once, into {place}")
            bad = _compute(run, encoder, views, source, place=place, facts=facts)
        unread = f", without {bad} that cannot be read" if bad else ""
        run.print_line(f"it took {time.monotonic() - began:.0f} s{unread}")
    return np.load(place / FEATURES, mmap_mode="r"), torch.from_numpy(np.load(place / MEAN))


@contextlib.contextmanager
def _written_alone(run: Run, place: Path) -> Iterator[None]:
    """Let the main process be the only writer of a place during the block.

    Raises:
        UserError: on every process: another writes there, or nobody can.
    """
    with contextlib.ExitStack() as stack:
        writes = only_writer(place.parent, f".{place.name}.writer.json")
        on_main(lambda: stack.enter_context(writes))
        yield


def _damage(place: Path) -> str | None:
    """Describe why stored features cannot be used: "" if there are none, None if they are whole."""
    if not place.exists():
        return ""
    try:
        manifest = read_json(place / MANIFEST)
        actual = {name: fingerprint(place / name) for name in (FEATURES, MEAN)}
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError):
        return f"{MANIFEST} cannot be read"
    expected = manifest.get("files", {}) if isinstance(manifest, dict) else {}
    changed = [name for name, facts in actual.items() if expected.get(name) != facts]
    return f"{changed[0]} has changed since it was written" if changed else None


def _compute(
    run: Run,
    encoder: Encoder,
    views: ViewsConfig,
    source: Source,
    *,
    place: Path,
    facts: dict[str, Any],
) -> int:
    """Compute and write all features, and return how many images cannot be read.

    Raises:
        UserError: there is no room, features are not finite, or no image can be read.
    """
    partial = place.with_name(f".{place.name}.part")
    problem = from_main(_make_file(partial, facts) if run.main else "")
    require(not problem, problem)
    rows = np.load(partial / FEATURES, mmap_mode="r+")
    bad, problem = _write_rows(run, encoder, views, source, rows=rows)
    problems = [sentence for sentence in gather_objects(problem) if sentence]
    bad = sum(gather_objects(bad))  # every process is here once all rows are written
    if bad == len(source):
        problems.append(all_unreadable(source))
    if run.main and not problems:
        np.save(partial / MEAN, _mean_of_rows(rows, len(source) - bad))
        files = {name: fingerprint(partial / name) for name in (FEATURES, MEAN)}
        manifest = {"facts": facts, "files": files, "unreadable": bad}
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
            shutil.rmtree(partial)
            return (
                f"the teacher's features need {needed / 1e9:.1f} GB, and {partial.parent} has "
                f"{free / 1e9:.1f} GB free; give --method.cache elsewhere, or --method.targets live"
            )
        np.lib.format.open_memmap(partial / FEATURES, mode="w+", dtype=kind, shape=shape).flush()
    except OSError as error:
        return f"the teacher's features cannot be written to {partial.parent}: {error.strerror}"
    return ""


def _write_rows(
    run: Run, encoder: Encoder, views: ViewsConfig, source: Source, *, rows: np.ndarray
) -> tuple[int, str]:
    """Write the rows of this process's chunks, in place.

    Returns:
        The number of unreadable images, and what is wrong with the features; "" if nothing is.
    """
    chunks = chunks_of(source)
    local = chunks[local_slice(len(chunks), *world())]
    device = run.accelerator.device
    bad, problem = 0, ""
    for chunk in embed_chunks(
        encoder.to(device), source, local, views, device=device, workers=run.config.workers
    ):
        blank = torch.tensor([position in chunk.bad for position in chunk.positions])
        features = chunk.features.masked_fill(blank[:, None], 0)
        bad += int(blank.sum())
        problem = problem or _rounding_problem(features, rows.dtype)
        if not problem:
            rows[chunk.positions.start : chunk.positions.stop] = features.numpy()
    if isinstance(rows, np.memmap):
        rows.flush()
    encoder.to("cpu")
    return bad, problem


def _rounding_problem(features: Tensor, kind: np.dtype) -> str:
    """Describe features that are not finite, or that the type on disk does not hold."""
    if not features.isfinite().all():
        return "the teacher's features are not finite: its weights are broken"
    if rounds_badly(features, kind):
        return (
            f"the teacher's features, up to {features.abs().max():.2g}, do not fit {kind}; give "
            "--method.precision float32"
        )
    return ""


def _mean_of_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Sum the rows [n, e] a block at a time, and divide by `count`. float32 [e]."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), BLOCK_ROWS):
        total += rows[start : start + BLOCK_ROWS].sum(0, dtype=np.float64)
    return (total / count).astype(np.float32)
