"""Every evaluation from its settings: `knn`, `linear`, `retrieval`, `verify` and `health`.

Each takes a config and returns an `Evaluation`: it opens the model and its baselines, embeds the
images, measures, and prints nothing but progress bars. Under several processes all of them call it;
the figures are the main process's.
"""

from typing import Any

from torch import Tensor

from selfsup.config import HealthConfig, KNNConfig, LinearConfig, RetrievalConfig, VerifyConfig
from selfsup.core.errors import UserError, require
from selfsup.core.numerics import normalize
from selfsup.core.progress import bar
from selfsup.data.sources import Source
from selfsup.data.subset import labelled_images, random_subset
from selfsup.evaluate import signs_of_health, verification
from selfsup.evaluate.comparison import Measurement, accuracy, compare
from selfsup.evaluate.features import Features, extract_views, split_rows
from selfsup.evaluate.leaks import LeakCheck
from selfsup.evaluate.linear_probe import STRENGTHS, Probe, linear_probe
from selfsup.evaluate.model import (
    EvaluatedModel,
    embed,
    open_images,
    search_device,
    train_and_test,
)
from selfsup.evaluate.results import Evaluation
from selfsup.evaluate.retrieval_figures import Retrieval, retrieval_after_reranking
from selfsup.evaluate.retrieval_figures import retrieval as search_figures
from selfsup.evaluate.search_images import SearchImages, search_images
from selfsup.evaluate.sgd_probe import sweep
from selfsup.evaluate.votes import few_shot, knn_votes, votes_from
from selfsup.search.products import parse_bytes

USUAL = ("R-precision", "MAP@R", "mAP")
"""Figures that a retrieval shows besides Recall@k, without --all."""
VIEWED = 1000  # images of which views are compared, at most


def knn(config: KNNConfig) -> Evaluation:
    """Measure the accuracy of weighted k-nearest-neighbour votes.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    require(bool(config.k) and bool(config.temperature), "give a --k and a --temperature")
    require(min((*config.k, *config.shots, config.draws)) > 0, "--k, --shots and --draws: above 0")
    require(min(config.temperature) > 0, "--temperature must be above 0")
    require(
        not config.shots or bool(config.test or config.test_split),
        "--shots takes labelled images from --data and classifies others: give --test",
    )
    check = LeakCheck(config, config.test, config.test_split)

    def features(model: EvaluatedModel) -> tuple[Features, Features | None]:
        check.open_for(model)
        bank, test = train_and_test(model, config, config.test, config.test_split)
        if len(bank.x) < 2:
            raise UserError(f"{config.data} holds {len(bank.x)} image; neighbours need 2 or more")
        return bank, test

    return compare("knn", config, features, lambda both: _measure_knn(*both, config, check))


def _measure_knn(
    bank: Features, test: Features | None, config: KNNConfig, check: LeakCheck
) -> Measurement:
    """Accuracy of each vote, and with a few images of each class."""
    votes, memory = votes_from(config), parse_bytes(config.memory)
    queries = bank if test is None else test
    device = search_device(bank.x, queries.x)
    x, others = bank.x.to(device), None if test is None else test.x.to(device)
    predictions = knn_votes(x, bank.labels, others, votes=votes, memory=memory)
    right = [accuracy(each, queries.labels) for each in predictions]
    values = {f"k-NN, {vote}": each for vote, each in zip(votes, right, strict=True)}
    facts: dict[str, Any] = {"bank": len(bank.x), "queries": len(queries.x)}
    facts["protocol"] = "leave one out" if test is None else "test images"
    facts["unreadable"] = bank.bad + (0 if test is None else test.bad)
    if test is not None and len(votes) > 1:
        in_train = knn_votes(x, bank.labels, votes=votes, memory=memory)
        scores = [float(accuracy(each, bank.labels).mean()) for each in in_train]
        best = scores.index(max(scores))
        values["k-NN, chosen in train"] = right[best]
        facts["chosen in train"] = str(votes[best])
    if test is not None and others is not None:
        for shots in config.shots:
            options = {"draws": config.draws, "seed": config.seed, "memory": memory}
            drawn = few_shot(x, bank.labels, others, shots=shots, vote=votes[0], **options)
            each = accuracy(drawn, test.labels)
            values[f"k-NN, {shots} of each class"] = each.mean(0)
            spread = float(each.mean(1).std()) if config.draws > 1 else 0.0
            facts[f"deviation of {config.draws} draws of {shots}"] = round(spread, 4)
    without_leaks, leaked = check.without_leaks(queries)
    return Measurement(values, facts | leaked, without_leaks=without_leaks)


def linear(config: LinearConfig) -> Evaluation:
    """Measure the accuracy of a linear classifier on frozen features.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    require(
        all(0 < fraction <= 1 for fraction in config.shares),
        "--shares must be above 0 and at most 1",
    )
    require(config.epochs > 0, f"--epochs must be above 0, not {config.epochs}")
    check = LeakCheck(config, config.test, config.test_split)

    def features(model: EvaluatedModel) -> tuple[Features, Features | None]:
        check.open_for(model)
        return train_and_test(model, config, config.test, config.test_split)

    return compare("linear", config, features, lambda both: _measure_linear(*both, config, check))


def _measure_linear(
    train: Features, test: Features | None, config: LinearConfig, check: LeakCheck
) -> Measurement:
    """Accuracy with each fraction of the training labels."""
    protocol, unreadable = "test images", train.bad
    if test is None:
        fitted, held_out = split_rows(train.labels, fraction=0.2, seed=config.seed)
        train, test = train.select(fitted.tolist()), train.select(held_out.tolist())
        test, protocol = test._replace(bad=0), "a fifth of each class held out"
    values, facts = {}, {"protocol": protocol, "unreadable": unreadable + test.bad}
    for fraction in config.shares:
        few = train
        if fraction < 1:
            rows = split_rows(train.labels, fraction=fraction, seed=config.seed)[1]
            few = train.select(rows.tolist())
        probe = _fit_probe(few, test, fraction, config)
        name = "linear probe" if fraction == 1 else f"linear probe, {fraction:.0%} of labels"
        values[name] = accuracy(probe.predictions, test.labels)
        setting = f"{'C' if config.solver == 'logistic' else 'rate'} {probe.setting:.3g}"
        facts[name] = f"{len(few.x)} images, {setting}"
        facts["converged"] = facts.get("converged", True) and probe.converged
    without_leaks, leaked = check.without_leaks(test)
    facts |= {"test": len(test.x)} | leaked
    return Measurement(values, facts, without_leaks=without_leaks)


def _fit_probe(train: Features, test: Features, fraction: float, config: LinearConfig) -> Probe:
    """Fit by the solver of the settings, with a progress bar."""
    logistic = config.solver == "logistic"
    fits = len(STRENGTHS) + 1 if logistic else config.epochs
    data = train.x, train.labels, test.x
    with bar(f"{fraction:.0%} of labels", fits, shown=True) as advance:
        if logistic:
            return linear_probe(*data, seed=config.seed, progress=advance)
        return sweep(*data, seed=config.seed, epochs=config.epochs, progress=advance)


def retrieval(config: RetrievalConfig) -> Evaluation:
    """Measure a search: Recall@k, R-precision, MAP@R, mAP.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    require(min(config.cuts, default=0) > 0, "--cuts must be above 0")
    check = LeakCheck(config, config.queries, config.queries_split)

    def features(model: EvaluatedModel) -> tuple[SearchImages, SearchImages | None]:
        check.open_for(model)
        return search_images(model, config)

    return compare(
        "retrieval", config, features, lambda both: _measure_retrieval(*both, config, check)
    )


def _measure_retrieval(
    gallery: SearchImages,
    queries: SearchImages | None,
    config: RetrievalConfig,
    check: LeakCheck,
) -> Measurement:
    """Figures of each query, and after re-ranking."""
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
    without_leaks, leaked = check.without_leaks(searching.features)
    if without_leaks is not None:
        without_leaks = without_leaks[figures.queries]
    groups = searching.rows.labels[figures.queries]
    return Measurement(values, facts | leaked, groups=groups, without_leaks=without_leaks)


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
        values["accuracy by folds"] = verification.fold_accuracies(
            similarity[order], same[order], config.folds
        )
    point = curve.at_far(config.keep)
    chosen = {
        "threshold": point.threshold,
        "its FAR": round(point.far, 6),
        "its TAR": round(point.tar, 6),
        "unreadable": unreadable,
    }
    return Measurement(values, facts | chosen, numbers)


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
        if config.views < 2 or model.views.channels != 3:
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
