"""A folder of embeddings from images: parts, each written whole, shared out among processes.

Processes do not wait for each other: a process makes the parts whose numbers are its own, and a
part that is there is never made again.

Shape letters: b images of a chunk, d width of an embedding.
"""

import csv
import io
import os
import socket
from pathlib import Path
from typing import NamedTuple

from selfsup.config import EmbedConfig
from selfsup.core.disk import cannot_write, flush
from selfsup.core.distributed import is_main, keep_freed_memory, launched, local_device
from selfsup.core.errors import UnusableError, require
from selfsup.core.live import doing
from selfsup.core.paths import check_output, exists
from selfsup.core.progress import bar
from selfsup.core.writer import only_writer
from selfsup.data import embedding_parts as store
from selfsup.data.embedded import embedded_rows
from selfsup.data.embedding_parts import Manifest, bad_images, part_file
from selfsup.data.fingerprint import difference
from selfsup.data.fingerprint import fingerprint as images_fingerprint
from selfsup.data.sources import Source
from selfsup.evaluate.embedded_features import model_facts
from selfsup.evaluate.embedding_part import PartTable, write_part
from selfsup.evaluate.features import embed_chunks
from selfsup.evaluate.model import EvaluatedModel, open_images, open_model
from selfsup.evaluate.results import result_file

LISTED = 3  # names of unreadable images in a message


class MadeFolder(NamedTuple):
    """What a process has made, and what there is."""

    folder: Path
    manifest: Manifest
    made: int
    """Images that this call has embedded."""
    missing: int
    """Parts that are not there yet: those of other shares."""
    bad: dict[str, str]
    """Unreadable images of this share, and why."""


def embed_folder(config: EmbedConfig) -> MadeFolder:
    """Embed the parts of this process's share that are not there yet.

    Raises:
        UserError: a setting, the model or the images do not fit, or the folder is of others.
    """
    store.parquet("selfsup embed")  # before anything is opened
    require(config.part > 0, f"--part must be above 0, not {config.part}")
    share, shares = parse_share(config.share)
    rank, processes = launched()
    keep_freed_memory()
    model = open_model(config)
    source = open_images(model, config.data, config.split, config)
    require(
        embedded_rows(source) is None, f"{config.data} is a folder of embeddings; give the images"
    )
    folder = Path(config.out) if config.out else result_file("embeddings", model)
    return make_parts(
        folder, model, source, config, share=(share * processes + rank, shares * processes)
    )


def parse_share(text: str) -> tuple[int, int]:
    """Read a share: "2/8" is (1, 8), and nothing is (0, 1).

    Raises:
        UserError: it is no such fraction.
    """
    number, slash, shares = (text or "1/1").partition("/")
    fits = number.isdecimal() and shares.isdecimal() and 0 < int(number) <= int(shares)
    require(bool(slash) and fits, f"--share is a number of several, such as 2/8, not {text!r}")
    return int(number) - 1, int(shares)


def make_parts(
    folder: Path,
    model: EvaluatedModel,
    source: Source,
    config: EmbedConfig,
    *,
    share: tuple[int, int],
) -> MadeFolder:
    """Make the parts of `share`, (number, of how many), that are not in the folder yet.

    Raises:
        UserError: the folder is of others, cannot be written, or too many images are unreadable.
    """
    doing("comparing the images with those of the folder")
    manifest = begin_folder(folder, model, source, config)
    columns = {name: source.columns[name] for name in manifest.columns}
    device = local_device()
    encoder = model.encoder.to(device)
    local = range(share[0], manifest.parts, share[1])
    total = sum(len(manifest.positions(part)) for part in local)
    bad: dict[str, str] = {}
    made = 0
    doing("")
    with bar(f"embeddings of {model.short_name}", total, shown=is_main()) as advance:
        for part in local:
            file = part_file(folder, part)
            lock = f".{file.stem}.writer.json"
            if not file.exists():
                with only_writer(folder, lock):
                    chunks = _chunks(manifest.positions(part), manifest.batch)
                    embedded = embed_chunks(
                        *(encoder, source, chunks, model.views),
                        device=device,
                        workers=config.workers,
                        digests=True,
                    )
                    write_part(file, embedded, PartTable(source, columns, manifest), advance)
                made += len(manifest.positions(part))
            else:
                (folder / lock).unlink(missing_ok=True)  # of one that was killed just after
                advance(len(manifest.positions(part)))
            bad |= bad_images(file)
            _check_bad(folder, bad, total, config.max_bad)
    missing = store.missing_parts(folder, manifest)
    if not missing:
        _list_bad(folder, manifest)
    return MadeFolder(folder, manifest, made, len(missing), bad)


def begin_folder(
    folder: Path, model: EvaluatedModel, source: Source, config: EmbedConfig
) -> Manifest:
    """Write the manifest of a new folder, or compare it with that of an old one.

    Raises:
        UserError: the folder is of another model, view or images.
    """
    check_output(folder, mark=store.MANIFEST, otherwise="no folder of embeddings")
    path = Path(config.data)
    manifest = Manifest(
        format=store.FORMAT,
        model=str(Path(config.model).resolve()) if exists(config.model) else config.model,
        **model_facts(model.encoder, model.views),
        data=str(path.resolve()) if exists(config.data) else config.data,
        split=config.split,
        labels=config.labels,
        images=images_fingerprint(source),
        rows=len(source),
        rows_a_part=-(-config.part // config.batch) * config.batch,
        batch=config.batch,
        dtype=config.dtype,
        labelled=source.labels is not None,
        classes=list(source.classes),
        columns={name: name + "_" * (name in store.OWN) for name in source.columns},
    )
    if not (folder / store.MANIFEST).exists():
        _publish(folder / store.MANIFEST, manifest.to_json())
    _require_same(folder, store.read_manifest(folder), manifest, source)
    return manifest


def _publish(file: Path, text: str) -> None:
    """Make a file, whole from its first moment; another process's, if it was quicker, stays.

    Raises:
        UserError: it cannot be written.
    """
    folder = file.parent
    part = folder.parent / f".{folder.name}.{file.name}.{socket.gethostname()}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        flush(part)
        try:
            os.link(part, file)
        except FileExistsError:
            pass
        except (OSError, AttributeError):  # without hard links
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error.errno or 0, error) from None


FLAGS = {
    "rows_a_part": "--part",
    "batch": "--batch",
    "dtype": "--dtype",
    "size": "--size",
    "labels": "--labels",
}
"""Flags that a folder keeps, by the fact that they decide on."""


def _require_same(folder: Path, old: Manifest, new: Manifest, source: Source) -> None:
    """Refuse a folder whose rows are of another model, view or images.

    Raises:
        UserError: the first difference.
    """
    other = "choose another --out"
    require(
        (old.weights, old.network) == (new.weights, new.network),
        f"{folder} has embeddings of {old.model} (sha256 {old.weights[:12]}), and {new.model} is "
        f"another model ({new.weights[:12]}): {other}",
    )
    for name, flag in FLAGS.items():
        before, now = getattr(old, name), getattr(new, name)
        require(
            before == now,
            f"{folder} was begun with {flag} {before}, not {now}: give {flag} {before} or {other}",
        )
    change = difference(source, old.images, new.images)
    require(not change, f"{folder} has embeddings of other images: {change}; {other}")
    for name in ("view", "columns", "labelled"):  # places may move; the content counts
        before, now = getattr(old, name), getattr(new, name)
        require(
            before == now, f"{folder} was begun with another {name} ({before}, not {now}): {other}"
        )


def _chunks(positions: range, batch: int) -> list[range]:
    """Split the positions of a part; chunks are those of all images, since parts begin with one."""
    return [positions[i : i + batch] for i in range(0, len(positions), batch)]


def _check_bad(folder: Path, bad: dict[str, str], total: int, most: float) -> None:
    """Stop if more than the fraction `most` of a share's images are unreadable.

    Raises:
        UserError: they are.
    """
    if len(bad) > most * total:
        names = ", ".join(f"{name} ({why})" for name, why in list(bad.items())[:LISTED])
        raise UnusableError(
            f"{len(bad)} of {total} images cannot be read ({len(bad) / total:.1%}), more than "
            f"--max-bad {most:.1%}: {names}{' and others' * (len(bad) > LISTED)}"
        )


def _list_bad(folder: Path, manifest: Manifest) -> None:
    """Write names and reasons of all unreadable images, once all parts are there."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["path", "reason"])
    count = 0
    for part in range(manifest.parts):
        rows = sorted(bad_images(part_file(folder, part)).items())
        writer.writerows(rows)
        count += len(rows)
    if count and not (folder / "bad_images.csv").exists():
        _publish(folder / "bad_images.csv", out.getvalue())
