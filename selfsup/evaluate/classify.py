"""Evaluations that classify: `knn` by the votes of neighbours and `linear` by a trained layer.

Each takes a config and returns an `Evaluation`, as those in `run.py` do.
"""

import math
from typing import Any

from torch import Tensor

from selfsup.config import KNNConfig, LinearConfig
from selfsup.core.errors import UserError, require
from selfsup.core.labels import class_labels
from selfsup.core.live import activity
from selfsup.core.progress import bar
from selfsup.evaluate.comparison import Measurement, accuracy, compare
from selfsup.evaluate.copies import Copies, votes_without_copies
from selfsup.evaluate.features import Features, split_rows
from selfsup.evaluate.leaks import LeakCheck
from selfsup.evaluate.linear_probe import STRENGTHS, Probe, linear_probe
from selfsup.evaluate.model import EvaluatedModel, search_device, train_and_test
from selfsup.evaluate.results import Evaluation
from selfsup.evaluate.sgd_probe import sweep
from selfsup.evaluate.shared_classes import unknown_classes
from selfsup.evaluate.votes import few_shot, knn_votes, votes_from
from selfsup.evaluate.without_leaks import all_leaked, with_leaks
from selfsup.search.products import parse_bytes


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
    copies = Copies(check)

    def features(model: EvaluatedModel) -> tuple[Features, Features | None]:
        check.open_for(model)
        bank, test = train_and_test(model, config, config.test, config.test_split)
        if len(bank.x) < 2:
            raise UserError(f"{config.data} holds {len(bank.x)} image; neighbours need 2 or more")
        return bank, test

    def measure(both: tuple[Features, Features | None]) -> Measurement:
        bank, test = both
        measured = _measure_knn(bank, test, config)
        if test is None:
            return measured
        measured = with_leaks(measured, check, test, unknown_classes(bank, test))
        if not all_leaked(measured):
            return measured
        votes, memory = votes_from(config), parse_bytes(config.memory)
        groups = copies.find(bank, test)
        if len(groups.train.unique()) < 2:
            return measured
        among = votes_without_copies(bank.x, bank.labels, groups, votes, memory)
        right = {
            f"k-NN, {vote}": accuracy(each, test.labels)
            for vote, each in zip(votes, among, strict=True)
        }
        return measured._replace(leave_one_out=right)

    return compare("knn", config, features, measure)


def _measure_knn(bank: Features, test: Features | None, config: KNNConfig) -> Measurement:
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
    return Measurement(values, facts)


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

    def measure(both: tuple[Features, Features | None]) -> Measurement:
        measured = _measure_linear(*both, config)
        train, test = both
        if test is None:
            return measured
        return with_leaks(measured, check, test, unknown_classes(train, test))

    return compare("linear", config, features, measure)


def _measure_linear(train: Features, test: Features | None, config: LinearConfig) -> Measurement:
    """Accuracy with each fraction of the training labels."""
    protocol, unreadable = "test images", train.bad
    if test is None:
        fitted, held_out = split_rows(train.labels, fraction=0.2, seed=config.seed)
        train, test = train.select(fitted.tolist()), train.select(held_out.tolist())
        test, protocol = test._replace(bad=0), "a fifth of each class held out"
    _check_shares(train.labels, config.shares)
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
    return Measurement(values, facts | {"test": len(test.x)})


def _check_shares(labels: Tensor, fractions: tuple[float, ...]) -> None:
    """Refuse a share that leaves no class a second image, which the probe's setting is chosen on.

    Raises:
        ValueError: with the share that would do.
    """
    largest = int(class_labels(labels).unique(return_counts=True)[1].max())
    enough = math.ceil(200 / largest) / 100  # of its images: two or more
    for fraction in fractions:
        if fraction < 1 and largest > 2 and round(fraction * largest) < 2:
            raise ValueError(
                f"--shares {fraction:g} leaves no class 2 images, one of them to choose the "
                f"probe's setting with: the largest has {largest} to train on, so give {enough:g} "
                "or more"
            )


def _fit_probe(train: Features, test: Features, fraction: float, config: LinearConfig) -> Probe:
    """Fit by the solver of the settings, with a progress bar."""
    logistic = config.solver == "logistic"
    fits = len(STRENGTHS) + 1 if logistic else config.epochs
    data = train.x, train.labels, test.x
    with bar(f"{activity()}: {fraction:.0%} of the labels", fits) as advance:
        if logistic:
            return linear_probe(*data, seed=config.seed, progress=advance)
        return sweep(*data, seed=config.seed, epochs=config.epochs, progress=advance)
