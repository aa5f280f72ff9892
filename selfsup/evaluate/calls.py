"""Evaluations as calls from Python; their settings are the flags of the commands."""

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

from selfsup.config import (
    HealthConfig,
    KNNConfig,
    LinearConfig,
    ModelConfig,
    RetrievalConfig,
    VerifyConfig,
)
from selfsup.core.errors import require
from selfsup.core.process_state import preserve_process_state
from selfsup.core.settings import from_keywords
from selfsup.core.synonyms import refuse_keywords
from selfsup.data.in_memory import InMemory, data_settings
from selfsup.encoders.bundle import model_name
from selfsup.evaluate import run
from selfsup.evaluate.results import Evaluation

C = TypeVar("C", bound=ModelConfig)


def knn(
    model: Any, data: Any, *, test: Any = "", test_labels: Any = None, **settings: Any
) -> Evaluation:
    """Measure k-NN accuracy of frozen features, with intervals and baselines.

    Args:
        model: a run, a bundle, a folder that timm loads, a timm model name, or a baseline.
        data: labelled images: a path, a torch Dataset of (image, label), or a list of images with
            `labels`.
        test: other labelled images to classify; without them each image is classified by all the
            others.
        test_labels: of test images given as a list.
        settings: the other flags of `selfsup knn`: `k=(20, 200)`, `against=(...)`, `labels`...

    Returns:
        Figures that print as a table; `.figures`, `.baselines` and `.to_dict()` have the numbers.

    Raises:
        UserError: a setting, the model or the images do not fit.
    """
    return _evaluate(run.knn, KNNConfig, model, data, settings, test=(test, test_labels))


def linear(
    model: Any, data: Any, *, test: Any = "", test_labels: Any = None, **settings: Any
) -> Evaluation:
    """Measure linear-probe accuracy of frozen features, with intervals and baselines.

    Arguments, result and errors are those of `knn`; without `test` a fifth of each class is held
    out. The other settings are the flags of `selfsup linear`.
    """
    return _evaluate(run.linear, LinearConfig, model, data, settings, test=(test, test_labels))


def retrieval(
    model: Any, data: Any, *, queries: Any = "", queries_labels: Any = None, **settings: Any
) -> Evaluation:
    """Measure a search: Recall@k, R-precision, MAP@R, mAP, with intervals and baselines.

    Arguments, result and errors are those of `knn`; `data` is the gallery, and without `queries`
    each image searches all the others. `queries_labels` are those of queries given as a list. The
    other settings are the flags of `selfsup retrieval`.
    """
    others = {"queries": (queries, queries_labels)}
    return _evaluate(run.retrieval, RetrievalConfig, model, data, settings, **others)


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
    **others: tuple[Any, Any],
) -> Evaluation:
    """Make the settings and evaluate, leaving the process as it was."""
    refuse_keywords(settings, config)
    values = {"model": model_name(model)}
    values |= data_settings("data", data, settings.pop("labels", None))
    for name, (images, labels) in others.items():
        of_files = isinstance(images, str | PathLike) and not isinstance(images, InMemory)
        require(
            labels is None or not of_files,
            f"{name}_labels are of images in memory; of files labels= names the column, as of data",
        )
        values |= data_settings(name, images, labels)
    made = from_keywords(config, values | settings)
    with preserve_process_state():
        return evaluate(made)
