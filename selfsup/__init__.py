"""From a folder of unlabelled images to an embedding model that is proven to be good.

    import selfsup

    run = selfsup.pretrain("images/", out="runs/a", method="simclr", epochs=100, batch=256)
    run = selfsup.finetune("labelled/", init=run, loss="triplet", out="runs/b")
    print(selfsup.evaluate.knn(run, "labelled/", test="other/"))
    hits = selfsup.search(run, "gallery/", "query.jpg", k=12)

Every name is loaded when it is first used: importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfsup.core.errors import UserError
from selfsup.core.version import __version__

if TYPE_CHECKING:
    from selfsup import evaluate
    from selfsup.api import (
        Adaptation,
        Embedded,
        Embedder,
        Hit,
        TrainedRun,
        adapt,
        embed,
        finetune,
        load,
        pretrain,
        search,
    )

__all__ = [
    "Adaptation",
    "Embedded",
    "Embedder",
    "Hit",
    "TrainedRun",
    "UserError",
    "__version__",
    "adapt",
    "embed",
    "evaluate",
    "finetune",
    "load",
    "pretrain",
    "search",
]


def __getattr__(name: str) -> Any:
    if name in ("evaluate", "search"):  # rooms of that name, which can be called
        return import_module(f"selfsup.{name}")
    if name in __all__:
        return getattr(import_module("selfsup.api"), name)
    raise AttributeError(f"module 'selfsup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
