"""Every evaluation from its settings: `knn`, `linear`, `retrieval`, `verify` and `health`.

Each takes a config and returns an `Evaluation`: it opens the model and its baselines, embeds the
images, measures, and prints nothing but progress bars. Under several processes all of them call it;
the figures are the main process's.
"""

from typing import Any

from torch import Tensor

from selfsup.config import HealthConfig, RetrievalConfig, VerifyConfig
from selfsup.core.errors import require
from selfsup.core.numerics import normalize
from selfsup.data.embedding_parts import has_images
from selfsup.data.sources import Source
from selfsup.data.subset import labelled_images, random_subset
from selfsup.evaluate import signs_of_health, verification
from selfsup.evaluate.classify import knn, linear
from selfsup.evaluate.comparison import Measurement, compare
from selfsup.evaluate.copies import Copies
from selfsup.evaluate.features import Features, extract_views
from selfsup.evaluate.leaks import LeakCheck
from selfsup.evaluate.model import (
    EvaluatedModel,
    embed,
    open_images,
    search_device,
)
from selfsup.evaluate.results import Evaluation
from selfsup.evaluate.retrieval_figures import Retrieval, retrieval_after_reranking
from selfsup.evaluate.retrieval_figures import retrieval as search_figures
from selfsup.evaluate.search_images import SearchImages, search_images
from selfsup.evaluate.without_leaks import all_leaked, with_leaks
from selfsup.search.products import parse_bytes

__all__ = ["health", "knn", "linear", "retrieval", "verify"]

USUAL = ("R-precision", "MAP@R", "mAP")
"""Figures that a retrieval shows besides Recall@k, without --all."""
VIEWED = 1000  # images of which views are compared, at most


def retrieval(config: RetrievalConfig) -> Evaluation:
    """Measure a search: Recall@k, R-precision, MAP@R, mAP.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    require(min(config.cuts, default=0) > 0, "--cuts must be above 0")
    check = LeakCheck(config, config.queries, config.queries_split)
    copies = Copies(check)

    def features(model: EvaluatedModel) -> tuple[SearchImages, SearchImages | None]:
        check.open_for(model)
        return search_images(model, config)

    def measure(both: tuple[SearchImages, SearchImages | None]) -> Measurement:
        gallery, queries = both
        measured, searched = _measure_retrieval(gallery, queries, config)
        if queries is None:
            return measured
        measured = with_leaks(measured, check, queries.features, rows=searched)
        if not all_leaked(measured) or config.sequence:
            return measured
        groups = copies.find(gallery.features, queries.features)
        try:
            alone, _ = _measure_retrieval(
                gallery.with_sequences(groups.train), queries.with_sequences(groups.test), config
            )
        except ValueError:  # no query has a match besides its copies
            return measured
        return measured._replace(leave_one_out=alone.values)

    return compare("retrieval", config, features, measure)


def _measure_retrieval(
    gallery: SearchImages,
    queries: SearchImages | None,
    config: RetrievalConfig,
) -> tuple[Measurement, Tensor]:
    """Figures of each query, and after re-ranking; and which queries have figures."""
    searching = queries or gallery
    device = search_device(gallery.features.x, searching.features.x)
    x = searching.rows.to(device)
    searched = None if queries is None else gallery.rows.to(device)
    memory = parse_bytes(config.memory)
    figures = search_figures(x, searched, cuts=config.cuts, metric=config.distance, memory=memory)
    values = _shown(figures, config)
    if config.rerank:
        again = retrieval_after_reranking(x, searched, cuts=config.cuts, memory=memory)
        values |= {f"{k}, re-ranked": v for k, v in _shown(again, config).items()}
    facts = {
        "distance": config.distance,
        "gallery": len(gallery.features.x),
        "queries": len(figures.queries),
        "left out": figures.left_out,
        "unreadable": gallery.features.bad + (queries.features.bad if queries else 0),
        "interval": "over classes",
    }
    groups = searching.rows.labels[figures.queries]
    return Measurement(values, facts, groups=groups), figures.queries


def _shown(searched: Retrieval, config: RetrievalConfig) -> dict[str, Tensor]:
    """The usual figures, or all."""
    usual = {name for name in searched.figures if name.startswith("Recall")} | set(USUAL)
    return {name: each for name, each in searched.figures.items() if config.all or name in usual}


def verify(config: VerifyConfig) -> Evaluation:
    """Measure how well a threshold on the similarity tells same from different.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    require(
        all(0 <= far < 1 for far in (*config.far, config.keep)),
        "--far and --keep must be at least 0 and below 1",
    )

    def features(model: EvaluatedModel) -> tuple[Source, Features]:
        source = open_images(model, config.data, config.split, config)
        require(
            source.labels is not None or bool(config.pairs),
            f"{config.data} has no labels: give --pairs",
        )
        if not config.pairs:
            source = labelled_images(source, config.data)
        return source, embed(model, source, config)

    return compare("verify", config, features, lambda both: _measure_verify(*both, config))


def _measure_verify(source: Source, features: Features, config: VerifyConfig) -> Measurement:
    """Rates over all thresholds, at the false accept rates of the settings, and by folds."""
    unreadable = features.bad
    if config.pairs:
        listed = verification.read_pairs(config.pairs, source, features)
        pairs, same, unreadable = listed.rows, listed.same, unreadable + listed.lost
    else:
        pairs, same = verification.label_pairs(features.labels, most=config.most, seed=config.seed)
    z = normalize(features.x)
    similarity = (z[pairs[:, 0]] * z[pairs[:, 1]]).sum(1)
    curve = verification.Curve(similarity, same)
    numbers = {"AUC": curve.auc, "EER": curve.eer}
    different = int((~same).sum())
    facts = {"pairs of one label": int(same.sum()), "pairs of two labels": different}
    for far in config.far:
        numbers[f"TAR at FAR {far:g}"] = curve.at_far(far).tar
        if far and far * different < 10:
            facts[f"few pairs of two labels for FAR {far:g}"] = different
    values = {}
    if len(pairs) >= config.folds >= 2:
        # pairs are listed by kind: unshuffled, folds would differ in their fraction of each
        order = verification.shuffled(len(pairs), config.seed)
        shuffled = similarity[order], same[order], config.folds
        values["balanced accuracy by folds"] = verification.fold_balanced_accuracies(*shuffled)
        if config.pairs:  # in the mixture that the file has; of random pairs most are different
            values["accuracy by folds"] = verification.fold_accuracies(*shuffled)
    point = curve.at_far(config.keep)
    chosen = {
        "threshold": point.threshold,
        "its FAR": round(point.far, 6),
        "its TAR": round(point.tar, 6),
        "unreadable": unreadable,
    }
    of_galleries = verification.gallery_thresholds(curve, config.keep)
    if len(of_galleries) > 2:  # the last is above every pair
        size = list(of_galleries)[-2]
        chosen[f"threshold to search {int(size):,} images"] = of_galleries[size]
    details = {"thresholds": of_galleries}
    return Measurement(values, facts | chosen, numbers, details=details)


def health(config: HealthConfig) -> Evaluation:
    """Measure what embeddings show without labels; with labels also how clusters agree with them.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    require(config.most > 1, f"--most must be above 1, not {config.most}")

    def features(model: EvaluatedModel) -> tuple[Features, Tensor | None]:
        whole = open_images(model, config.data, config.split, config)
        source = random_subset(whole, config.most, seed=config.seed)
        embedded = embed(model, source, config)
        require(len(embedded.x) > 1, f"{config.data} holds 1 image; this needs 2 and more")
        if config.views < 2 or model.views.channels != 3 or not has_images(config.data):
            return embedded, None
        return embedded, extract_views(
            model.encoder,
            source,
            model.views,
            positions=embedded.positions[:VIEWED].tolist(),
            views_each=config.views,
            seed=config.seed,
        )

    notes = tuple(f"  {name}: {words}" for name, words in signs_of_health.MEANING.items())
    return compare(
        "health", config, features, lambda both: _measure_health(*both, config), notes=notes
    )


def _measure_health(features: Features, views: Tensor | None, config: HealthConfig) -> Measurement:
    """Every sign; with labels also the agreement of clusters with them."""
    numbers = signs_of_health.health(features.x)
    facts: dict[str, Any] = {"images": len(features.x), "width": features.x.shape[1]}
    if views is not None:
        numbers |= signs_of_health.health_of_views(views)
        facts["images with views"] = len(views)
    labelled = features.labels >= 0
    labels = features.labels[labelled]
    if len(labels.unique()) > 1:
        agreement = signs_of_health.clustering(features.x[labelled], labels, seed=config.seed)
        numbers |= {"NMI of k-means": agreement.nmi, "AMI of k-means": agreement.ami}
        facts["clusters"] = len(labels.unique())
    return Measurement({}, facts | {"unreadable": features.bad}, numbers)
