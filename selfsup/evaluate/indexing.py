"""An index from images: embed what is new, add it to what is there, write the folder."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfsup.config import IndexConfig
from selfsup.core.distributed import is_main
from selfsup.core.errors import require
from selfsup.core.numerics import normalize
from selfsup.core.paths import check_output
from selfsup.core.writer import only_writer
from selfsup.data.audit import image_digest
from selfsup.data.embedded import embedded_rows
from selfsup.data.embedding_parts import parquet
from selfsup.encoders.thresholds import read_threshold
from selfsup.encoders.weights import fingerprint
from selfsup.evaluate.model import EvaluatedModel, embed, open_images, open_model
from selfsup.evaluate.results import result_file
from selfsup.search import engines
from selfsup.search import index as store
from selfsup.search.index import Engine, Index, Rows


@dataclass(frozen=True)
class BuiltIndex:
    """The index that was written, and how many images it lacks."""

    index: Index
    unreadable: int
    """Images that could not be read and were left out."""


def build_index(config: IndexConfig) -> BuiltIndex:
    """Make an index of images, add to one or take from one, and write it.

    Every process embeds its slice; the main process writes.

    Raises:
        UserError: a setting, the model or the images do not fit, or the folder holds something
            else.
    """
    require(bool(config.data) or bool(config.remove), "give --data, or names to --remove")
    require(
        not (config.data and config.remove),
        "--remove and --data are two steps, for --data may hold what is removed: take the images "
        "out without --data, then --add others",
    )
    require(not (config.ann and config.qdrant), "--ann and --qdrant are two engines: choose one")
    parquet("an index")  # before minutes of embedding
    model = open_model(config)
    folder = Path(config.out) if config.out else result_file("index", model)
    check_output(folder, mark="index.json", otherwise="no index")
    place = folder if (folder / "index.json").exists() else folder.parent
    writes = only_writer(place, f".{folder.name}.writer.json")
    with writes if is_main() else nullcontext():
        return _build(config, model, folder)


def _build(config: IndexConfig, model: EvaluatedModel, folder: Path) -> BuiltIndex:
    """Make or change the index in a folder, and write it."""
    index, unreadable = _open_or_start(config, model, folder), 0
    if config.remove and is_main():
        index = store.remove(index, config.remove)
    if config.data:
        embeddings, rows, unreadable = _embed_rows(config, model)
        if is_main():
            index = store.add(index, embeddings, rows)
    if not is_main():
        return BuiltIndex(index, unreadable)
    engine: Engine = "usearch" if config.ann else "qdrant" if config.qdrant else index.engine
    require(
        engine != "qdrant" or bool(config.qdrant),
        f"this index is in a vector database: give --qdrant, {index.where!r}?",
    )
    threshold = read_threshold(model.folder, len(index)) if model.folder else None
    index = replace(index, engine=engine, where=config.qdrant or index.where, threshold=threshold)
    store.write(index, engines.build)
    return BuiltIndex(index, unreadable)


def _open_or_start(config: IndexConfig, model: EvaluatedModel, folder: Path) -> Index:
    """The index that is in the folder, or an empty one.

    Raises:
        UserError: the folder holds something else, or an index of other weights.
    """
    require(
        model.folder is not None,
        f"an index needs the folder of a run or a bundle, which search opens again; {config.model} "
        "is none",
    )
    path = str(Path(config.model).resolve())
    weights, size = fingerprint(model.encoder), model.views.size
    if not config.add and not config.remove:
        old = folder / "index.json"
        index = store.empty(folder, path, weights, size)
        return replace(index, writing=store.read(folder).writing) if old.exists() else index
    index = store.read(folder)
    require(
        (index.weights, index.size) == (weights, size),
        f"{folder} was made by {index.model} with other weights or another --size; make it again "
        "without --add",
    )
    return replace(index, model=path)


def _embed_rows(config: IndexConfig, model: EvaluatedModel) -> tuple[np.ndarray, Rows, int]:
    """Embeddings of length 1, a line for each, and how many images could not be read."""
    source = open_images(model, config.data, config.split, config)
    features = embed(model, source, config)
    behind = embedded_rows(source)
    data, split = config.data, config.split
    if behind is not None:  # pictures of a search are where the images are
        data, split = behind[0].manifest.data, behind[0].manifest.split or split
    data = str(Path(data).resolve()) if Path(data).exists() else data
    rows: Rows = {name: [] for name in store.COLUMNS}
    for position, label in zip(features.positions.tolist(), features.labels.tolist(), strict=True):
        rows["name"].append(source.name(position))
        rows["data"].append(data)
        rows["split"].append(split)
        rows["label"].append("" if label < 0 else features.classes[label])
        rows["sha256"].append(image_digest(source, position))
    return normalize(features.x).numpy(), rows, features.bad
