"""Where weights come from: a run, a bundle, a folder of timm's, a file, or published weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import yaml

from selfsup.config import EncoderConfig, InitConfig, TrainConfig, ViewsConfig
from selfsup.core.cli import read_settings
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.json_files import read_json
from selfsup.core.paths import exists
from selfsup.core.settings import with_values
from selfsup.encoders.encoder import (
    Encoder,
    as_configured,
    encoder_folder,
    load,
    parse_arguments,
)
from selfsup.encoders.evaluation_view import evaluation_view
from selfsup.encoders.fit_weights import Match
from selfsup.encoders.published import (
    base_name,
    create_published,
    is_published,
    published_name,
    timm_settings,
)
from selfsup.encoders.sizes import fitting_size, size_arguments
from selfsup.encoders.variants import with_pooling
from selfsup.encoders.weights_file import open_file


@dataclass(frozen=True)
class Start:
    """An encoder with the weights that it starts from."""

    encoder: Encoder
    config: EncoderConfig
    """`build` makes the same network of it, with random weights and without an embedding head."""
    views: ViewsConfig
    """The evaluation view that comes with the weights."""
    match: Match | None = None
    """How the tensors of a file fit; None where a folder or a hub has the network itself."""


def open_start(
    init: InitConfig, encoder: EncoderConfig, *, size: int = 0, channels: int = 0
) -> Start:
    """Open the weights that `init.init` names.

    Args:
        init: where the weights are.
        encoder: the network's settings; those that are given must be the weights' own, but for
            pooling, memory layout and compilation, and arguments that change no tensor but a patch
            embedding.
        size: of the images in pixels; 0 for the weights' own.
        channels: of the images; 0 for the weights' own.

    Raises:
        UserError: there are no such weights, they cannot be read, or a setting contradicts them.
    """
    text, folder = init.init, Path(init.init)
    _require_weights(text)
    file_only = {"format": init.format, "moving-average": init.moving_average}
    for flag, value in file_only.items():
        require(
            not value or not (folder.is_dir() or is_published(text)),
            f"--{flag} is for a file of weights, and --init {text} is none: leave it out",
        )
    if is_published(text):
        return _open_published(text, encoder, size, channels)
    if folder.is_dir():
        return _open_folder(folder, encoder, size, channels)
    found = open_file(init, encoder, size, channels or 3)
    views = evaluation_view(timm_settings(found.name), found.size)
    made = as_configured(found.encoder.model, encoder)
    return Start(made, found.config, views, found.match)


def _require_weights(text: str) -> None:
    """Raise a UserError unless this names a folder, a file or published weights."""
    if is_published(text) or (exists(text) and (Path(text).is_dir() or Path(text).is_file())):
        return
    require(
        not timm.is_model(base_name(text)),
        f"--init {text} is neither a folder nor a file; timm:{text} are the published weights of "
        "that timm model",
    )
    guess = did_you_mean(text, ("timm:", "hf-hub:"))
    raise UserError(f"--init {text} does not exist{guess}")


def _open_published(text: str, encoder: EncoderConfig, size: int, channels: int) -> Start:
    name = published_name(text)
    base = base_name(name) if not name.startswith("hf-hub:") else ""
    if base:
        _require_same("name", encoder.name, base, text)
    require(encoder.stem != "small", f"--encoder.stem small: {text} has the usual stem")
    args = parse_arguments(encoder.args)
    if size and base:  # of a hub's name the network is not known yet
        size = fitting_size(base, size, int(args.get("patch_size", 0)))
        args = size_arguments(name, size) | args
    if channels:
        args["in_chans"] = channels
    model = create_published(name, **args)
    settings = dict(model.pretrained_cfg)
    if not base:
        base = str(settings["architecture"])
        _require_same("name", encoder.name, base, text)
        if size not in (0, int(settings["input_size"][-1])):
            size = fitting_size(base, size, int(args.get("patch_size", 0)))
            model = create_published(name, **(size_arguments(base, size) | args))
    model = with_pooling(model, encoder.pooling, base)
    own = getattr(model, "_model_args", {}) if name.startswith("hf-hub:") else {}
    config = replace(encoder, name=base, stem="standard", args=_as_yaml(own, encoder.args))
    views = evaluation_view(settings, size or int(settings["input_size"][-1]))
    return Start(as_configured(model, encoder), config, views)


def _as_yaml(own: Mapping[str, Any], given: str) -> str:
    """Arguments that a hub's folder has, and those that are given, as one setting."""
    derived = ("num_classes", "img_size", "in_chans", "global_pool", "dynamic_img_size")
    args = {k: v for k, v in own.items() if k not in derived} | parse_arguments(given)
    return yaml.safe_dump(args, default_flow_style=True).strip() if args else ""


def _open_folder(folder: Path, encoder: EncoderConfig, size: int, channels: int) -> Start:
    theirs = encoder_of(folder)
    for name in ("name", "stem", "args") if theirs.name else ():  # else `load` says what is wrong
        _require_same(name, getattr(encoder, name), getattr(theirs, name), str(folder))
    loaded, views = load(folder, size=size, pooling=encoder.pooling)
    require(
        channels in (0, views.channels),
        f"the encoder of {folder} takes images of {views.channels} channels, and --views.mean has "
        f"{channels}",
    )
    pooling = encoder.pooling or theirs.pooling
    how = {name: getattr(encoder, name) for name in ("channels_last", "compile")}
    config = replace(theirs, pooling=pooling, **how)
    return Start(as_configured(loaded.model, encoder), config, views)


def _require_same(name: str, given: str, theirs: str, init: str) -> None:
    """Raise a UserError if a setting of the encoder is given, and is not that of the weights."""
    require(
        given in (getattr(EncoderConfig, name), theirs),
        f"--encoder.{name} {given}: the encoder of --init {init} has {theirs or 'none'}. Leave the "
        "flag out, or start without --init",
    )


def encoder_of(folder: Path) -> EncoderConfig:
    """Return the settings of an exported encoder: those of its run, or else timm's name alone."""
    if (folder / "config.yaml").is_file():
        settings = read_settings(folder / "config.yaml", TrainConfig, strict=False)
        encoder: EncoderConfig = with_values(EncoderConfig, settings.get("encoder", {}))
        if encoder.name:
            return encoder
    try:
        settings = read_json(encoder_folder(folder) / "config.json")
        return EncoderConfig(name=settings["architecture"])
    except (OSError, ValueError, KeyError, TypeError):
        return EncoderConfig()  # `load` says what is wrong
