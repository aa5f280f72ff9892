"""Evaluation: frozen features in, figures with intervals and baselines out.

`selfsup.evaluate.knn(run, "images/")` and its neighbours are calls; see `calls.py`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfsup.evaluate.calls import health, knn, linear, retrieval, verify
    from selfsup.evaluate.intervals import Figure
    from selfsup.evaluate.results import Evaluation

__all__ = ["Evaluation", "Figure", "health", "knn", "linear", "retrieval", "verify"]
WHERE = {"Evaluation": "results", "Figure": "intervals"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'selfsup.evaluate' has no attribute {name!r}")
    return getattr(import_module(f"selfsup.evaluate.{WHERE.get(name, 'calls')}"), name)
