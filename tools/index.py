"""Embeddings of a gallery in a folder, to be searched: made, added to, and taken from.

python tools/index.py --model runs/triplet --data gallery/
python tools/index.py --model runs/triplet --data more/ --add
python tools/index.py --model runs/triplet --remove old.jpg other.jpg
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.config import ModelConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from selfsup.evaluate.model import Subject
    from selfsup.search.index import Index, Rows


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """Embed images once, so that they can be searched; `--out` is by default RUN/index."""

    data: str = ""
    """Images to put in: a folder, a manifest, arrays, shards, a .pack..."""
    add: bool = False
    """Keep what is in the index; images of the same name are replaced."""
    remove: tuple[str, ...] = ()
    """Names of images to take out."""
    ann: bool = False
    """Search approximately, by usearch: for galleries of millions; needs 'selfsup[ann]'."""
    qdrant: str = ""
    """Also write to this vector database and search there: PATH#COLLECTION for an embedded one, or
    URL#COLLECTION; needs 'selfsup[qdrant]'."""


def main(config: Config) -> None:
    """Embed what is new, write what is left."""
    from dataclasses import replace

    from selfsup.core.distributed import is_main
    from selfsup.core.errors import require
    from selfsup.encoders.bundle import load_bundle
    from selfsup.evaluate.model import open_subject
    from selfsup.evaluate.results import beside
    from selfsup.search import engines
    from selfsup.search import index as store

    require(bool(config.data) or bool(config.remove), "give --data, or names to --remove")
    require(not (config.ann and config.qdrant), "--ann and --qdrant are two engines: choose one")
    subject = open_subject(config)
    folder = Path(config.out) if config.out else beside("index", subject)
    index = started(config, subject, folder)
    if config.remove and is_main():
        index = store.remove(index, config.remove)
    if config.data:
        made = embedded(config, subject)
        if is_main():
            index = store.add(index, *made)
    if not is_main():
        return
    engine: Any = "usearch" if config.ann else "qdrant" if config.qdrant else index.engine
    threshold = load_bundle(subject.folder).threshold if subject.folder else None
    index = replace(index, engine=engine, where=config.qdrant or index.where, threshold=threshold)
    store.write(index, engines.build)
    known = "no threshold" if threshold is None else f"same above {threshold:.3f}"
    print(f"{folder}: {len(index)} images, {index.embeddings.shape[1]} wide, {engine}, {known}")


def started(config: Config, subject: "Subject", folder: Path) -> "Index":
    """The index to begin with: what is there, or an empty one.

    Raises:
        UserError: what is there is of other weights.
    """
    from dataclasses import replace

    from selfsup.core.errors import require
    from selfsup.encoders.weights import fingerprint
    from selfsup.search import index as store

    require(
        subject.folder is not None,
        f"an index needs the folder of a run or a bundle, which search opens again; {config.model} "
        "is none",
    )
    model = str(Path(config.model).resolve())
    weights, size = fingerprint(subject.encoder), subject.views.size
    if not config.add and not config.remove:
        require(
            not folder.exists() or (folder / "index.json").exists() or not any(folder.iterdir()),
            f"{folder} exists and is no index; choose another --out",
        )
        old = folder / "index.json"
        made = store.empty(folder, model, weights, size)
        return replace(made, writing=store.read(folder).writing) if old.exists() else made
    index = store.read(folder)
    require(
        (index.weights, index.size) == (weights, size),
        f"{folder} was made by {index.model} with other weights or another --size; make it anew "
        "without --add",
    )
    return replace(index, model=model)


def embedded(config: Config, subject: "Subject") -> "tuple[Any, Rows]":
    """Embeddings of length 1 of the images that can be read, and a line for each."""
    from selfsup.core.numerics import normalize
    from selfsup.data.audit import digest
    from selfsup.evaluate.model import embed, source_of

    source = source_of(subject, config.data, config.split, config)
    found = embed(subject, source, config)
    data = str(Path(config.data).resolve()) if Path(config.data).exists() else config.data
    rows: Rows = {name: [] for name in ("name", "data", "split", "label", "sha256")}
    for position, label in zip(found.positions.tolist(), found.labels.tolist(), strict=True):
        rows["name"].append(source.name(position))
        rows["data"].append(data)
        rows["split"].append(config.split)
        rows["label"].append("" if label < 0 else found.classes[label])
        rows["sha256"].append(digest(source.pixels(position), source.stored(position)))
    if found.bad:
        print(f"{found.bad} images cannot be read and were left out")
    return normalize(found.x).numpy(), rows


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
