"""Evaluations as calls from Python; their settings are the flags of the commands."""

from collections.abc import Callable
from os import fspath
from typing import Any, TypeVar

from selfsup.config import (
    HealthConfig,
    KNNConfig,
    LinearConfig,
    ModelConfig,
    RetrievalConfig,
    VerifyConfig,
)
from selfsup.core.process_state import preserve_process_state
from selfsup.core.settings import from_keywords
from selfsup.core.synonyms import refuse_keywords
from selfsup.data.in_memory import data_settings
from selfsup.evaluate import run
from selfsup.evaluate.results import Evaluation

C = TypeVar("C", bound=ModelConfig)


def knn(model: Any, data: Any, *, test: Any = "", **settings: Any) -> Evaluation:
    """Measure k-NN accuracy of frozen features, with intervals and baselines.

    Args:
        model: a run, a bundle, a folder that timm loads, a timm model name, or a baseline.
        data: labelled images: a path, a torch Dataset of (image, label), or a list of images with
            `labels`.
        test: other labelled images to classify; without them each image is classified by all the
            others.
        settings: the other flags of `selfsup knn`: `k=(20, 200)`, `against=(...)`, `labels`...

    Returns:
        Figures that print as a table; `.figures`, `.baselines` and `.to_dict()` have the numbers.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    return _evaluate(run.knn, KNNConfig, model, data, settings, test=test)


def linear(model: Any, data: Any, *, test: Any = "", **settings: Any) -> Evaluation:
    """Measure linear-probe accuracy of frozen features, with intervals and baselines.

    Arguments, result and errors are those of `knn`; without `test` a fifth of each class is held
    out. The other settings are the flags of `selfsup linear`.
    """
    return _evaluate(run.linear, LinearConfig, model, data, settings, test=test)


def retrieval(model: Any, data: Any, *, queries: Any = "", **settings: Any) -> Evaluation:
    """Measure a search: Recall@k, R-precision, MAP@R, mAP, with intervals and baselines.

    Arguments, result and errors are those of `knn`; `data` is the gallery, and without `queries`
    each image searches all the others. The other settings are the flags of `selfsup retrieval`.
    """
    return _evaluate(run.retrieval, RetrievalConfig, model, data, settings, queries=queries)


def verify(model: Any, data: Any, **settings: Any) -> Evaluation:
    """Measure how well a threshold tells same from different: AUC, EER, TAR at FAR.

    Arguments, result and errors are those of `knn`. The other settings are the flags of `selfsup
    verify`.
    """
    return _evaluate(run.verify, VerifyConfig, model, data, settings)


def health(model: Any, data: Any, **settings: Any) -> Evaluation:
    """Measure spread, rank and hubs of features, without labels.

    Arguments, result and errors are those of `knn`. The other settings are the flags of `selfsup
    health`.
    """
    return _evaluate(run.health, HealthConfig, model, data, settings)


def _evaluate(
    evaluate: Callable[[C], Evaluation],
    config: type[C],
    model: Any,
    data: Any,
    settings: dict[str, Any],
    **others: Any,
) -> Evaluation:
    """Make the settings and evaluate, leaving the process as it was."""
    refuse_keywords(settings, config)
    values = {"model": fspath(model), **data_settings("data", data, settings.pop("labels", None))}
    for name, images in others.items():
        values |= data_settings(name, images)
    made = from_keywords(config, values | settings)
    with preserve_process_state():
        return evaluate(made)
