"""Retrieval figures of frozen features: a run folder, a timm model, others' checkpoints.

python tools/retrieval.py --model runs/triplet --data products/
python tools/retrieval.py --model runs/reid --data reid.csv --split gallery --queries-split query \
    --camera camera --rerank
"""

from typing import TYPE_CHECKING, Any

from selfsup.config import RetrievalConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.data.sources import Source
    from selfsup.evaluate.features import Features
    from selfsup.evaluate.model import Subject
    from selfsup.evaluate.results import Measured
    from selfsup.search.sides import Side

USUAL = ("R-precision", "MAP@R", "mAP")
JUNK = ("1", "true", "yes", "junk")


def main(config: RetrievalConfig) -> None:
    """Embed, search, report."""
    from selfsup.core.errors import require
    from selfsup.evaluate.leaks import KnownImages
    from selfsup.evaluate.model import embed, source_of
    from selfsup.evaluate.results import judge

    require(min(config.cuts, default=0) > 0, "--cuts must be above 0")
    apart = bool(config.queries or config.queries_split)
    known = KnownImages(config, config.queries, config.queries_split)

    def look(subject: "Subject") -> "tuple[tuple[Features, Side], tuple[Features, Side] | None]":
        known.of(subject)
        sources = [source_of(subject, config.data, config.split, config)]
        if apart:
            named = config.queries or config.data
            sources.append(source_of(subject, named, config.queries_split, config))
        found = []
        for source, what in zip(sources, ("gallery", "queries"), strict=False):
            require(source.labels is not None, f"the {what} have no labels; this needs them")
            found.append((source, embed(subject, source, config)))
        return sides(found, config)

    judge("retrieval", config, look, lambda seen: measure(*seen, config, known))


def sides(
    found: "list[tuple[Source, Features]]", config: RetrievalConfig
) -> "tuple[tuple[Features, Side], tuple[Features, Side] | None]":
    """Gallery and queries with the words of their columns as the same numbers; junk left out."""
    from selfsup.core.errors import UserError
    from selfsup.search.sides import Side

    known: dict[str, dict[str, int]] = {config.camera: {}, config.sequence: {}}
    classes = found[0][1].classes
    made = []
    for i, (source, features) in enumerate(found):
        features = features.with_classes(classes)
        classes = features.classes
        if config.junk and i == 0:
            words = column(source, config.junk, features)
            kept = [j for j, word in enumerate(words) if word.lower() not in JUNK]
            if not kept:
                raise UserError(f"every image of the gallery is junk by column {config.junk!r}")
            features = features.rows(kept)
        camera, sequence = (
            numbers(column(source, name, features), known[name]) if name else None
            for name in (config.camera, config.sequence)
        )
        made.append((features, Side(features.x, features.labels, camera, sequence)))
    return made[0], made[1] if len(made) > 1 else None


def column(source: "Source", name: str, features: "Features") -> list[str]:
    """A column's words for the images that could be read."""
    from selfsup.core.errors import UserError

    if name not in source.columns:
        raise UserError(f"there is no column {name!r}; there is {', '.join(source.columns)}")
    words = source.columns[name]
    return [words[i] for i in features.positions.tolist()]


def numbers(words: list[str], known: dict[str, int]) -> "Tensor":
    """Words as numbers, the same for both sides."""
    import torch

    return torch.tensor([known.setdefault(word, len(known)) for word in words])


def measure(
    gallery: "tuple[Features, Side]",
    queries: "tuple[Features, Side] | None",
    config: RetrievalConfig,
    known: Any,
) -> "Measured":
    """Figures of each query, and after re-ranking."""
    from selfsup.evaluate.results import Measured
    from selfsup.evaluate.retrieval_figures import reranked, retrieval
    from selfsup.search.products import bytes_of

    asked, side = queries or gallery
    other = gallery[1] if queries else None
    memory = bytes_of(config.memory)
    found = retrieval(side, other, cuts=config.cuts, metric=config.distance, memory=memory)
    values = shown(found.figures, config)
    if config.rerank:
        again = reranked(side, other, cuts=config.cuts, memory=memory).figures
        values |= {f"{k}, re-ranked": v for k, v in shown(again, config).items()}
    facts = {
        "distance": config.distance,
        "gallery": len(gallery[1].x),
        "queries": len(found.queries),
        "left out": found.left_out,
        "unreadable": gallery[0].bad + (queries[0].bad if queries else 0),
        "interval": "over classes",
    }
    clean, leaked = known.clean(asked)
    clean = None if clean is None else clean[found.queries]
    return Measured(values, facts | leaked, groups=side.labels[found.queries], clean=clean)


def shown(figures: "dict[str, Tensor]", config: RetrievalConfig) -> "dict[str, Tensor]":
    """The usual ones, or all."""
    usual = {name for name in figures if name.startswith("Recall")} | set(USUAL)
    return {name: each for name, each in figures.items() if config.all or name in usual}


def command() -> None:
    """Run from the command line."""
    launch(main, RetrievalConfig)


if __name__ == "__main__":
    command()
