"""Loading, embedding and search as calls from Python; their settings are the flags of the commands.

Each call restores the process's random states, threads and warnings.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast, overload

from torch import Tensor

from selfsup.config import ModelConfig
from selfsup.core.errors import require
from selfsup.core.numerics import normalize
from selfsup.core.process_state import preserve_process_state
from selfsup.core.settings import from_keywords
from selfsup.core.synonyms import refuse_keywords
from selfsup.data.in_memory import data_settings
from selfsup.encoders.bundle import Embedder, load_bundle, model_name
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.thresholds import read_threshold
from selfsup.search.query import Hit


class Embedded(NamedTuple):
    """Embeddings of images, with names and labels."""

    x: Tensor
    """float32 [n, d], rows of length 1."""
    names: list[str]
    """Name of each image: its path, or its position."""
    labels: list[str] | None
    """The name of each image's class, or None where there are no labels."""


@preserve_process_state()
def load(model: Any, **settings: Any) -> Embedder:
    """Load an encoder as a module from images to embeddings.

    `selfsup.load("runs/b").embed(["a.jpg", "b.jpg"])` is float32 [2, d], rows of length 1; called
    itself it takes a tensor of images, see `Embedder`.

    Args:
        model: a run, a bundle, a folder that timm loads, or a timm model name, whose weights are
            random unless `weights` names a file or is "cached".
        settings: `weights`, `size` and the other flags that choose a model.

    Raises:
        UserError: there is no such encoder.
    """
    name = model_name(model)
    if Path(name).is_dir():
        require(not settings, f"{model} is a folder, which has its own settings: {settings}")
        return load_bundle(name)
    from selfsup.evaluate.model import open_model

    opened = open_model(_model_config(model, "", settings))
    require(isinstance(opened.encoder, Encoder), f"{model} is a baseline without an encoder")
    return Embedder(cast(Encoder, opened.encoder), opened.views, {})


@preserve_process_state()
def embed(model: Any, data: Any, *, labels: Any = None, **settings: Any) -> Embedded:
    """Embed images: float32 [n, d] of length 1, with their names and labels.

    Args:
        model: a run, a bundle, a folder that timm loads, or a timm model name.
        data: images, labelled or not: a folder or whatever else `--data` takes, a torch Dataset, or
            a list of images.
        labels: of images given as a list; for files, the manifest's column with the labels.
        settings: `split`, `size`, `batch`, `workers` and the other flags that choose a model.

    Raises:
        UserError: the images or the model cannot be opened.
    """
    from selfsup.evaluate.model import embed as embed_source
    from selfsup.evaluate.model import open_images, open_model

    config = _model_config(model, data, settings, labels)
    opened = open_model(config)
    source = open_images(opened, config.data, config.split, config)
    features = embed_source(opened, source, config)
    names = [source.name(position) for position in features.positions.tolist()]
    words = [*features.classes, ""]  # -1, an image without label, has the last
    class_names = None if source.labels is None else [words[i] for i in features.labels.tolist()]
    return Embedded(normalize(features.x), names, class_names)


def _model_config(
    model: Any, data: Any, settings: dict[str, Any], labels: Any = None
) -> ModelConfig:
    refuse_keywords(settings, ModelConfig)
    return from_keywords(
        ModelConfig, {"model": model_name(model), **data_settings("data", data, labels), **settings}
    )


@overload
def search(
    model: Any,
    gallery: Any,
    queries: str | PathLike[str],
    *,
    k: int = 12,
    memory: str = "1GB",
    labels: Any = None,
    **settings: Any,
) -> list[Hit]: ...
@overload
def search(
    model: Any,
    gallery: Any,
    queries: Any,
    *,
    k: int = 12,
    memory: str = "1GB",
    labels: Any = None,
    **settings: Any,
) -> list[list[Hit]]: ...
@preserve_process_state()
def search(
    model: Any,
    gallery: Any,
    queries: Any,
    *,
    k: int = 12,
    memory: str = "1GB",
    labels: Any = None,
    **settings: Any,
) -> list[Hit] | list[list[Hit]]:
    """Find the nearest images of a gallery, exactly.

    Args:
        model: a run, a bundle, a folder that timm loads, or a timm model name.
        gallery: images as in `embed`; or what `embed` returned for them, which saves time when a
            gallery is searched again.
        queries: the file of an image, for a list of hits; or several files, images as in `embed`,
            or what `embed` returned for them, for a list of hits each.
        k: neighbours of each query.
        memory: what the search may hold beside the embeddings.
        labels: of the gallery, as in `embed`; queries need none.
        settings: as in `embed`, for gallery and queries.

    Returns:
        Hits of each query, the nearest first; `.same` says whether one is above the threshold for a
        gallery of this size that `evaluate.verify` saved with the run.

    Raises:
        UserError: something cannot be opened.
    """
    import torch

    from selfsup.search.neighbours import nearest
    from selfsup.search.products import parse_bytes

    if isinstance(gallery, Embedded):
        require(labels is None, "the gallery is embedded already: give labels to embed()")
        bank = gallery
    else:
        bank = embed(model, gallery, labels=labels, **settings)
    single = isinstance(queries, str | PathLike)
    x = _embed_queries(model, [queries] if single else queries, settings)
    threshold = read_threshold(Path(model_name(model)), len(bank.x))
    require(k > 0, f"k must be above 0, not {k}")
    widths = x.shape[1], bank.x.shape[1]
    require(widths[0] == widths[1], f"queries are {widths[0]} wide and the gallery {widths[1]}")
    hits: list[list[Hit]] = []
    with torch.inference_mode():
        for block in nearest(x, bank.x, k, memory=parse_bytes(memory)):
            for row in zip(block.similarity.tolist(), block.indices.tolist(), strict=True):
                hits.append([_hit(bank, *pair, threshold) for pair in zip(*row, strict=True)])
    return hits[0] if single else hits


def _embed_queries(model: Any, queries: Any, settings: dict[str, Any]) -> Tensor:
    """Embed queries: those that are files by their paths."""
    from selfsup.evaluate.model import embed_files, open_model

    if isinstance(queries, Embedded):
        return queries.x
    files = isinstance(queries, Sequence) and all(isinstance(q, str | PathLike) for q in queries)
    if not files or not queries:
        return embed(model, queries, **settings).x
    paths = [Path(query) for query in queries]
    for path in paths:
        require(path.is_file(), f"{path} is no file of an image; for a folder search with embed()")
    config = _model_config(model, "", settings)
    return normalize(embed_files(open_model(config), paths, config))


def _hit(bank: Embedded, similarity: float, row: int, threshold: float | None) -> Hit:
    label = "" if bank.labels is None else bank.labels[row]
    same = None if threshold is None else similarity > threshold
    return Hit(bank.names[row], label, similarity, same, row)
