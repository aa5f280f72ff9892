"""Look up recipes by name: methods, ranking losses and pipelines of views."""

import importlib
import typing
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selfsup.config import ViewsConfig
from selfsup.config.pipelines import PIPELINES
from selfsup.core.errors import UserError, did_you_mean

PRETRAIN, FINETUNE = "pretrain_", "finetune_"


def methods() -> list[str]:
    """List the pretraining methods: `pretrain_moco_v2.py` is "moco-v2"."""
    return _names(PRETRAIN)


def losses() -> list[str]:
    """List the ranking losses that a fine-tuning recipe has."""
    return list(_losses())


def recipe(name: str) -> Any:
    """Import a recipe of this name, such as "pretrain-moco-v2"."""
    return importlib.import_module(f"selfsup.recipes.{name.replace('-', '_')}")


def recipes() -> list[str]:
    """List all recipes by the names of their commands."""
    return [
        f"{start}{name}".replace("_", "-")
        for start in (PRETRAIN, FINETUNE)
        for name in _names(start)
    ]


def pretraining_recipe(method: str) -> Any:
    """Find the recipe of a pretraining method.

    Raises:
        UserError: there is none of that name.
    """
    name = method.lower().replace("_", "-").replace(" ", "-")
    if name not in methods():
        raise UserError(
            f"there is no method {method!r}{did_you_mean(name, methods())}; recipes/ has "
            f"{', '.join(methods())}"
        )
    return recipe(f"pretrain-{name}")


def finetuning_recipe(loss: str) -> tuple[Any, dict[str, Any]]:
    """Find the recipe of a ranking loss, and the settings of its method that choose the loss.

    The name of a family ("pairs", "proxies", as config.yaml has it) chooses its default loss.

    Raises:
        UserError: there is none of that name.
    """
    name = loss.lower().replace("_", "-").replace(" ", "-")
    by_name = _losses()
    if name not in by_name and name in _names(FINETUNE):
        return recipe(f"finetune-{name}"), {}
    if name not in by_name:
        raise UserError(
            f"there is no loss {loss!r}{did_you_mean(name, by_name)}; there are "
            f"{', '.join(by_name)}"
        )
    family, settings = by_name[name]
    return recipe(f"finetune-{family}"), dict(settings)


def pipeline_views(name: str, recipe: Any) -> ViewsConfig:
    """Take the changes of a named pipeline, with the number and size of a recipe's views.

    Raises:
        UserError: there is none of that name.
    """
    key = name.lower().replace("_", "-").replace(" ", "-")
    if key not in PIPELINES:
        raise UserError(
            f"there is no pipeline {name!r}{did_you_mean(key, PIPELINES)}; there are "
            f"{', '.join(PIPELINES)}"
        )
    views: ViewsConfig = recipe.Config.views
    return replace(PIPELINES[key], size=views.size, views=views.views, local=views.local)


def _names(start: str) -> list[str]:
    spec = find_spec("selfsup.recipes")
    if spec is None:
        raise UserError(
            "selfsup is not installed, so that its recipes are not there: pip install -e ."
        )
    (folder,) = spec.submodule_search_locations or [""]
    files = sorted(Path(folder).glob(f"{start}*.py"))
    return [file.stem.removeprefix(start).replace("_", "-") for file in files]


@cache
def _losses() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the recipe family and the settings of each loss, by name."""
    by_name: dict[str, tuple[str, dict[str, Any]]] = {}
    for family in sorted(_names(FINETUNE), key=lambda name: name != "triplet"):
        method = type(recipe(f"finetune-{family}").Config.method)
        default = method().loss
        for loss in typing.get_args(typing.get_type_hints(method)["loss"]):
            if family != "triplet":
                by_name[loss] = family, {"loss": loss}
            else:
                name = family if loss == default else f"{family}-{loss}"
                by_name[name] = family, {"loss": loss}
    return by_name
