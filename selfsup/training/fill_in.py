"""Fill in the settings that a command leaves to its images and to the encoder it starts from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from selfsup.config import EncoderConfig, FinetuneConfig, PretrainConfig, TrainConfig, ViewsConfig
from selfsup.config.views import size_for
from selfsup.core import distributed
from selfsup.core.cli import read_settings
from selfsup.core.errors import UserError, require
from selfsup.core.settings import with_values
from selfsup.data.open import training_source
from selfsup.data.samplers import batch_shape
from selfsup.data.sources import Source, sample
from selfsup.data.subset import only_labelled
from selfsup.encoders.encoder import ENCODER_NAME, load
from selfsup.training.finetune import starting_encoder
from selfsup.training.first_rate import FROM_RANDOM, first_rate, known_share

C = TypeVar("C", bound=TrainConfig)
RESNET = EncoderConfig(name=ENCODER_NAME)
BATCH = 256
"""Images of a pretraining batch, where there are so many."""
SAMPLED = 32
"""Images whose size is measured, evenly spread."""


def fill_in(config: C, *, encoder: EncoderConfig = RESNET) -> C:
    """Replace the settings that are left open, and leave those that are given.

    A run that goes on takes what it began with. Else:

    encoder: that of --init, or `encoder`, a resnet18 where its method can have any network.
    views.size: that of --init, or the shorter side of the images, at most 96.
    batch: 256 images, or all of fewer; of fine-tuning 64 images, of 16 classes or all of fewer.
    optim.lr of fine-tuning with AdamW: by how well the encoder knows the classes, `first_rate`.

    Raises:
        UserError: the images cannot be opened, or a setting contradicts the encoder of --init.
    """
    distributed.start()
    config = _as_begun(config)
    if isinstance(config, FinetuneConfig) and config.init:
        initial, views = _of_init(config)
        config = replace(config, encoder=initial, views=views)
    elif not config.encoder.name:
        args = config.encoder.args or encoder.args
        config = replace(config, encoder=replace(config.encoder, name=encoder.name, args=args))
    if config.views.size and not _batch_is_open(config) and not _rate_is_open(config):
        return config
    source = training_source(config)
    if not config.views.size:
        size = size_for(shorter_sides(source))
        config = replace(config, views=replace(config.views, size=size))
    if isinstance(config, FinetuneConfig) and source.labels is not None:
        p, k = batch_shape(source.labels, config.classes, config.images)
        config = replace(config, classes=p, images=k)
        if _rate_is_open(config):
            config = replace(config, optim=replace(config.optim, lr=_rate(config, source)))
    elif isinstance(config, PretrainConfig) and not config.batch:
        processes = distributed.world()[1]
        fits = min(BATCH, len(source)) // processes * processes
        config = replace(config, batch=max(processes, fits))
    return config


def _as_begun(config: C) -> C:
    """Take the settings that are left open from the run in `config.out`, if it has checkpoints."""
    folder = Path(config.out)
    begun = any((folder / "checkpoints").glob("step-*")) and (folder / "config.yaml").is_file()
    if not config.out or not begun:  # without --out nothing is run, and "" is no folder
        return config
    stored = read_settings(folder / "config.yaml", type(config), strict=False)
    changes = {}
    for name in ("batch", "classes", "images"):
        if getattr(config, name, None) == 0:
            changes[name] = stored.get(name, 0)
    fields = [("encoder", "name"), ("views", "size"), ("optim", "lr")]
    if not config.encoder.name:  # the arguments came with the default network
        fields.append(("encoder", "args"))
    for section, name in fields:
        value = stored.get(section, {}).get(name)
        given = changes.get(section, getattr(config, section))
        if not getattr(given, name) and value:
            changes[section] = replace(given, **{name: value})
    return replace(config, **changes)


def _batch_is_open(config: TrainConfig) -> bool:
    if isinstance(config, FinetuneConfig):
        return not (config.classes and config.images)
    return isinstance(config, PretrainConfig) and not config.batch


def _rate_is_open(config: TrainConfig) -> bool:
    of_adamw = isinstance(config, FinetuneConfig) and config.optim.name == "adamw"
    return of_adamw and not config.optim.lr


def _rate(config: FinetuneConfig, source: Source) -> float:
    if not config.init and not config.encoder.weights:
        return FROM_RANDOM
    return first_rate(known_share(starting_encoder(config), only_labelled(source), config))


def shorter_sides(source: Source) -> list[int]:
    """Measure the shorter sides of a sample of the images, in pixels.

    Raises:
        UserError: none of the sample can be read.
    """
    sides = [min(image.shape[:2]) for image in sample(source, SAMPLED)]
    require(bool(sides), "no image of a sample can be read; selfsup audit --data lists why")
    return sides


def _of_init(config: FinetuneConfig) -> tuple[EncoderConfig, ViewsConfig]:
    """Take encoder and normalisation from the encoder that the run starts from.

    Raises:
        UserError: there is none, or a setting that was given contradicts it.
    """
    folder = Path(config.init)
    if not folder.exists():
        raise UserError(f"--init {folder} does not exist")
    trained = load(folder)[1]
    encoder = encoder_of(folder)
    for name in ("name", "stem", "args", "weights"):
        given, theirs = getattr(config.encoder, name), getattr(encoder, name)
        if given not in (getattr(EncoderConfig, name), theirs):
            raise UserError(
                f"--encoder.{name} {given}: the encoder of --init {folder} has "
                f"{theirs or 'none'}. Leave the flag out, or start without --init"
            )
    how = {name: getattr(config.encoder, name) for name in ("channels_last", "compile")}
    encoder = replace(encoder, **how)
    views = config.views
    for name in ("mean", "std"):
        given, theirs = getattr(views, name), getattr(trained, name)
        if given not in (getattr(ViewsConfig, name), theirs):
            raise UserError(
                f"--views.{name} {given}: the encoder of --init {folder} was trained with {theirs}"
            )
    size = views.size or trained.size
    return encoder, replace(views, size=size, mean=trained.mean, std=trained.std)


def encoder_of(folder: Path) -> EncoderConfig:
    """Return the settings of an exported encoder: those of its run, or else timm's name alone."""
    if (folder / "config.yaml").is_file():
        settings = read_settings(folder / "config.yaml", TrainConfig, strict=False)
        encoder: EncoderConfig = with_values(EncoderConfig, settings.get("encoder", {}))
        if encoder.name:
            return replace(encoder, weights="")
    inner = folder / "encoder" if (folder / "encoder" / "config.json").is_file() else folder
    return EncoderConfig(name=json.loads((inner / "config.json").read_text())["architecture"])
