"""The public functions of selfsup: training, embedding and search as ordinary calls.

Each call takes the settings of its command as keywords, runs alone or under `accelerate launch`,
and restores the process's random states, threads and warnings.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from selfsup.catalog import finetuning_recipe, pipeline_views, pretraining_recipe
from selfsup.config import AdaptConfig
from selfsup.core.ending import announced
from selfsup.core.errors import UserError, require
from selfsup.core.process_state import preserve_process_state
from selfsup.core.settings import from_keywords
from selfsup.core.synonyms import refuse_keywords
from selfsup.data.in_memory import data_settings
from selfsup.encoders.bundle import Embedder
from selfsup.evaluate.adaptation import Adaptation
from selfsup.evaluate.embedding_calls import Embedded, embed, load, search
from selfsup.search.query import Hit
from selfsup.training.trained_run import TrainedRun


@preserve_process_state()
def pretrain(
    data: Any,
    *,
    out: str | PathLike[str],
    method: Any = "simclr",
    pipeline: str = "",
    labels: Any = None,
    **settings: Any,
) -> TrainedRun:
    """Pretrain an encoder on unlabelled images, or resume the run in `out`.

    Args:
        data: a folder or another form that `--data` accepts, a torch Dataset, or a list of images.
        out: the run folder. The same call with the same folder resumes the run.
        method: a name, as in `selfsup pretrain --method`; or a Config, such as
            `SimCLRConfig(temperature=0.1)`; or a dict, {"name": "simclr", "temperature": 0.1}.
        pipeline: name of predefined views, such as "factory", instead of the method's.
        labels: of images given as a list; for files, the manifest's column with the labels.
        settings: every other flag, `epochs=100, batch=256, views={"size": 64}`; nested ones as a
            Config object or a dict.

    Raises:
        UserError: a setting is unknown or does not fit, in one sentence.
    """
    name, method_settings = _named(method, "simclr")
    recipe = pretraining_recipe(name)
    settings |= {"out": out, "method": method_settings}
    _train(recipe, data, labels, settings, pipeline)
    return TrainedRun(out)


@preserve_process_state()
def finetune(
    data: Any,
    *,
    out: str | PathLike[str],
    init: Any = "",
    loss: Any = None,
    miner: str | None = None,
    pipeline: str = "",
    labels: Any = None,
    validation: Any = None,
    **settings: Any,
) -> TrainedRun:
    """Fine-tune an encoder for search on labelled images, or resume the run in `out`.

    Args:
        data: labelled images: a folder of folders or another form that `--data` accepts, a torch
            Dataset of (image, label), or a list of images.
        out: the run folder. The same call with the same folder resumes the run.
        init: the run whose encoder to start from; empty for random weights.
        loss: a name, as in `selfsup finetune --loss` (triplet by default), or a Config, such as
            `TripletConfig(margin=0.1)`.
        miner: selects triplets or pairs of a batch; by default the loss's usual miner.
        pipeline: name of predefined views, such as "reid", instead of the usual ones.
        labels: of images given as a list; for files, the manifest's column with the labels.
        validation: labelled images, as in `data`, on which the exported encoder is chosen; by
            default a tenth of the classes of `data`, which is not trained on.
        settings: every other flag, `patience=3, probe={"every": 100}`; nested ones as a Config
            object or a dict.

    Raises:
        UserError: a setting is unknown or does not fit, in one sentence.
    """
    if validation is not None:
        probe = settings.get("probe", {})
        require(
            isinstance(probe, Mapping) and "data" not in probe,
            "validation and the data of probe are the same: give one, and probe as a dict",
        )
        settings["probe"] = {**probe, **data_settings("data", validation)}
    more = settings.pop("method", {})
    require(isinstance(more, Mapping), "method must be a dict here. Pass a Config as loss=")
    for name, value in (("loss", loss), ("miner", miner)):
        twice = value is not None and name in more
        require(not twice, f'{name} and method={{"{name}": ...}} are the same: give one')
    if loss is None:
        loss = str(more.get("name", "triplet"))
    if isinstance(loss, str):
        recipe, method_settings = finetuning_recipe(loss)
    else:
        name, method_settings = _named(loss, "triplet")
        recipe, _ = finetuning_recipe(name)
    if miner is not None:
        require(hasattr(recipe.Config.method, "miner"), f"miner has no effect with loss {loss!r}")
        require(
            isinstance(method_settings, Mapping),
            "the Config of the loss has a miner already. Set it there, without miner=",
        )
        method_settings = {**method_settings, "miner": miner}
    if more:
        require(isinstance(method_settings, Mapping), "a Config of the loss is complete already")
        method_settings = {**method_settings, **more}
    settings |= {"out": out, "init": init, "method": method_settings}
    _train(recipe, data, labels, settings, pipeline)
    return TrainedRun(out)


@preserve_process_state()
def adapt(
    data: Any,
    *,
    init: Any,
    out: str | PathLike[str],
    test: Any = None,
    remember: Any = None,
    labels: Any = None,
    **settings: Any,
) -> Adaptation:
    """Adapt published weights to labelled images, and say whether it helped.

    Fine-tunes, mixes the weights with the published ones, and judges all three on classes that
    nothing else has seen. What leads is in `out`, which `load`, `embed` and `search` take; where no
    lead is proven, these are the published weights.

    Args:
        data: labelled images, as in `finetune`.
        init: the weights: "timm:resnet50", a run, a folder, a file.
        out: the folder of the result. The same call with the same folder goes on.
        test: labelled images for the verdict; by default a tenth of the classes of `data`, or a
            fifth of the images of each class where there are fewer than 80 classes.
        remember: other labelled images, on which the published weights are good and should stay so.
        labels: of images given as a list; for files, the manifest's column with the labels.
        settings: every other flag of `selfsup adapt`; nested ones as a Config object or a dict.

    Returns:
        The verdict: `.helped`, `.verdict()` as a sentence, `.table()`, and `.own` and `.remembered`
        with all figures.

    Raises:
        UserError: a setting does not fit, or images are too few to judge by, in one sentence.
    """
    from selfsup.tools import adapt as command

    refuse_keywords(settings, AdaptConfig)
    values = {**data_settings("data", data, labels), "init": init, "out": out, **settings}
    for name, images in (("test", test), ("remember", remember)):
        values |= data_settings(name, images) if images is not None else {}
    with announced():
        verdict: Adaptation = command.adapt(from_keywords(AdaptConfig, values))
    return verdict


def _named(method: Any, default: str) -> tuple[str, Any]:
    """Return the name and the settings of a method that is a name, a dict or a Config."""
    if isinstance(method, str):
        return method, {}
    if isinstance(method, Mapping):
        return str(method.get("name", default)), dict(method)
    require(hasattr(method, "name"), f"a method is a name, a dict or a Config, not {method!r}")
    return str(method.name), method


def _train(recipe: Any, data: Any, labels: Any, settings: dict[str, Any], pipeline: str) -> None:
    refuse_keywords(settings, recipe.Config)
    defaults = {"views": pipeline_views(pipeline, recipe)} if pipeline else {}
    values = {**data_settings("data", data, labels), **settings}
    config = from_keywords(recipe.Config, values, defaults)
    with announced():
        recipe.main(config)


__all__ = [
    "Adaptation",
    "Embedded",
    "Embedder",
    "Hit",
    "TrainedRun",
    "UserError",
    "adapt",
    "embed",
    "finetune",
    "load",
    "pretrain",
    "search",
]
