"""The encoder: a timm model without its classifier, with a stem for small images; load and export.

Shape letters: b images, s side in pixels.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from selfsup.config import EncoderConfig, Pooling, ViewsConfig
from selfsup.core.disk import flush, same_permissions, write_to
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.json_files import read_json
from selfsup.core.tensor_files import check_header
from selfsup.core.version import __version__
from selfsup.core.yaml_files import parse_yaml
from selfsup.encoders.evaluation_view import SMALL, crop_of, evaluation_view
from selfsup.encoders.published import base_name
from selfsup.encoders.sizes import check_sizes, family_of, fitting_size, size_arguments
from selfsup.encoders.variants import small_stem_resnet, with_pooling
from selfsup.encoders.weights import READ_ERRORS, require_finite

ENCODER_NAME = "resnet18"
"""The timm model where neither --encoder.name nor --init names one."""
MARK = "selfsup"
"""Key of config.json in exports: their last layer is an embedding's head, not a classifier."""
WEIGHTS = "model.safetensors"
"""timm's name of the file beside config.json."""


class Encoder(nn.Module):
    """A network from images [b, 3, s, s] to features [b, dim]."""

    def __init__(self, model: nn.Module, *, channels_last: bool = True) -> None:
        """Wrap a timm model.

        Args:
            model: ends in features, or in a linear layer that makes an embedding.
            channels_last: memory layout of weights and images.
        """
        super().__init__()
        self.model: Any = model
        self.channels_last = channels_last
        self.head_is_new = False  # whether `set_head` made it
        if channels_last:
            self.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return int(self.model.num_classes or self.model.head_hidden_size)

    def set_head(self, dim: int | None) -> None:
        """Set the width of the embedding head, in place. A head of another width is replaced.

        The head is a linear layer at the end of the model, so it is exported with the model.

        Args:
            dim: width of the embedding. 0 adds no head. None keeps an existing head, or adds one
                of width 128.

        Raises:
            UserError: the width is below 0.
        """
        if dim is None:
            dim = self.model.num_classes or 128
        require(dim >= 0, f"--method.dim must be 0 or more, not {dim}")
        if dim and self.model.num_classes != dim:
            self.model.reset_classifier(dim)
            self.head_is_new = True

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images, [b, 3, s, s] -> [b, dim]."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.model(images)
        return features


def build(config: EncoderConfig, size: int, *more_sizes: int, channels: int = 3) -> Encoder:
    """Build a new encoder.

    Args:
        config: name (resnet18 if empty), stem, arguments and pooling.
        size: side of the images in pixels; it decides on the stem.
        more_sizes: further sides that the encoder must accept.
        channels: of the images.

    Raises:
        UserError: timm has no such model, or it does not accept these arguments or sizes.
    """
    config = replace(config, name=config.name or ENCODER_NAME)
    if not timm.is_model(config.name):
        suggestion = did_you_mean(config.name, timm.list_models())
        raise UserError(f"timm has no model {config.name!r}{suggestion}")
    base = base_name(config.name)
    require(
        base == config.name,
        f"{config.name} names published weights, which a network of that name alone does not have: "
        f"timm:{config.name} reads them (--init of training, --model of evaluations), {base} has "
        "random ones",
    )
    name, args = _name_and_arguments(config, size)
    if channels != 3:
        args["in_chans"] = channels
    try:
        model = timm.create_model(name, num_classes=0, **(args | parse_arguments(config.args)))
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(f"timm cannot make {config.name} with {args}: {error}") from None
    check_sizes(model, config.name, size, *more_sizes, channels=channels)
    return as_configured(with_pooling(model, config.pooling, config.name), config)


def as_configured(model: Any, config: EncoderConfig) -> Encoder:
    """Wrap a timm model with the memory layout and compilation of the settings."""
    encoder = Encoder(model, channels_last=config.channels_last)
    if config.compile:
        encoder.model.compile()
    return encoder


def build_for(config: EncoderConfig, views: ViewsConfig) -> Encoder:
    """Build a new encoder for views of these sizes and channels; see `build`."""
    return build(config, *views.sizes, channels=views.channels)


def parse_arguments(text: str) -> dict[str, Any]:
    """Parse arguments of timm.create_model that are written as YAML."""
    try:
        args = parse_yaml(text, "encoder arguments")[1] or {}
    except UserError:
        args = None
    if not isinstance(args, dict):
        raise UserError(f"encoder arguments must read like '{{channels: [32, 64]}}', not {text!r}")
    return args


def _name_and_arguments(config: EncoderConfig, size: int) -> tuple[str, dict[str, Any]]:
    """Choose the name and the arguments for timm.create_model, for images of that size."""
    family = family_of(config.name)
    small = config.stem == "small" or (config.stem == "auto" and size <= SMALL)
    args = size_arguments(config.name, size)
    if not small:
        return config.name, args
    if family == "resnet":
        return small_stem_resnet.__name__, {"base": config.name}
    if family in ("vision_transformer", "deit"):
        return config.name, args | {"patch_size": max(1, size // 8)}
    if family == "convnext":
        return config.name, args | {"patch_size": 2 if size > 32 else 1}
    if config.stem == "small":
        raise UserError(
            f"{config.name} has no small stem; only ResNet, ViT and ConvNeXt have one. "
            "Use --encoder.stem standard"
        )
    return config.name, args


def export(encoder: Encoder, folder: Path, views: ViewsConfig) -> None:
    """Write config.json and model.safetensors for `timm.create_model("local-dir:...")`.

    The preprocessing in config.json is the evaluation view: the shorter side is resized to
    size / crop_pct and the centre is cropped.

    Args:
        encoder: the network.
        folder: where the two files go.
        views: size, interpolation, mean and std of the evaluation view.
    """
    mean, std = views.normalization
    preprocessing = {
        "input_size": (views.channels, views.size, views.size),
        "interpolation": views.resampling,
        "crop_pct": crop_of(views),
        "crop_mode": "squash" if views.squash else "center",
        "mean": mean,
        "std": std,
    }
    model = encoder.model.to(memory_format=torch.contiguous_format)

    def write(part: Path) -> None:
        part.mkdir(parents=True)
        timm.models.save_for_hf(
            model,
            str(part),
            model_config={"pretrained_cfg": preprocessing, MARK: __version__},
            safe_serialization=True,
            data_config=preprocessing,
        )
        same_permissions(part, "config.json")

    needed = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    _write_whole(folder, write, needed=needed)
    encoder.to(
        memory_format=torch.channels_last if encoder.channels_last else torch.contiguous_format
    )


def export_architecture(encoder: Encoder, folder: Path, views: ViewsConfig) -> None:
    """Write the config.json of `export` without the weights: `load` makes the network, `blank`."""
    export(encoder, folder, views)
    (folder / WEIGHTS).unlink()


def copy_export(exported: Path, folder: Path) -> None:
    """Put a copy of an exported encoder in the place of another, whole or not at all.

    Raises:
        NoRoomError: the disk is full.
    """
    needed = sum(file.stat().st_size for file in exported.iterdir())
    _write_whole(folder, lambda part: shutil.copytree(exported, part), needed=needed)


def _write_whole(folder: Path, write: Callable[[Path], object], *, needed: int) -> None:
    """Let `write` make a folder beside its place, and put it there when it is complete."""
    part = folder.with_name(f".{folder.name}.part")

    def remove() -> None:
        shutil.rmtree(part, ignore_errors=True)

    def write_and_place() -> None:
        remove()
        write(part)
        _replace_folder(part, folder)

    write_to(folder, write_and_place, needed=needed, clean=remove)


def _replace_folder(new: Path, folder: Path) -> None:
    """Put a whole folder in the place of another, which is removed only then."""
    for file in new.iterdir():
        flush(file)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        for other in folder.iterdir():
            if not (new / other.name).exists():  # what people have put beside the weights
                other.rename(new / other.name)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def encoder_folder(folder: Path) -> Path:
    """Return where config.json is: `encoder/` of a run or a bundle, or the folder itself."""
    return folder / "encoder" if (folder / "encoder" / "config.json").is_file() else folder


def load(
    folder: Path, *, blank: bool = False, size: int = 0, pooling: Pooling = ""
) -> tuple[Encoder, ViewsConfig]:
    """Load an exported encoder and its evaluation view.

    The classifier of a timm model that somebody else saved is left out: its features are what it
    classifies by. The last layer of an export of selfsup makes its embedding, and stays.

    Args:
        folder: a run folder or a bundle with `encoder/`, or a folder with timm's config.json.
        blank: use random weights instead of the exported ones.
        size: of the images in pixels, where it is another than the model's; it grows to whole
            patches, see `fitting_size`.
        pooling: another than the model's.

    Raises:
        UserError: there is no encoder, its files do not match, or it takes neither this size nor
            this pooling.
    """
    inner = encoder_folder(folder)
    try:
        settings = read_json(inner / "config.json")
        view = settings["pretrained_cfg"]
        own_size = int(view["input_size"][-1])
        saved_args = settings.get("model_args", {})
        base = saved_args.get("base", settings["architecture"])
        size = fitting_size(base, size, int(saved_args.get("patch_size", 0))) if size else 0
        views = evaluation_view(view, size or own_size)
        args = size_arguments(base, size) if size not in (0, own_size) else {}
        for file in () if blank else inner.glob("*.safetensors"):
            check_header(file)
        model: Any = timm.create_model(f"local-dir:{inner}", pretrained=not blank, **args)
        ours = _is_export(inner, folder, settings)
        if model.num_classes and not ours:
            model.reset_classifier(0)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no exported encoder: {_without_encoder(folder)}") from None
    except (*READ_ERRORS, pickle.UnpicklingError) as error:
        reason = "its config.json is none of timm's: no " if isinstance(error, KeyError) else ""
        sentence = reason + " ".join(str(error).split())[:300]
        if isinstance(error, json.JSONDecodeError | TypeError) and not _is_timms(inner):
            sentence = "its config.json is none of timm's"
        raise UserError(f"{inner} cannot be loaded: {sentence}") from None
    if not blank:
        require_finite(model, inner)
    require(
        not (ours and pooling and model.num_classes),
        f"the embedding head of {folder} goes with the pooling that it was trained with: leave "
        f"--pooling {pooling} out",
    )
    if pooling or not ours:
        model = with_pooling(model, pooling, base)
    return Encoder(model), views


def _without_encoder(folder: Path) -> str:
    """Say what a folder without an encoder is instead, and what would do."""
    if (folder / "checkpoints").is_dir():
        return "its run has not finished"
    if (folder / "index.json").is_file():
        return "it is an index. Give the run or bundle that it was made with"
    return "no encoder/config.json"


def _is_timms(folder: Path) -> bool:
    """Whether config.json names a network and its preprocessing."""
    try:
        settings = read_json(folder / "config.json")
    except ValueError:
        return False
    return isinstance(settings, dict) and {"architecture", "pretrained_cfg"} <= settings.keys()


def _is_export(inner: Path, folder: Path, settings: dict[str, Any]) -> bool:
    """Whether selfsup wrote this: by its mark, or by the run or bundle around older exports."""
    around = (inner.parent / name for name in ("bundle.json", "config.yaml", "checkpoints"))
    return MARK in settings or inner != folder or any(file.exists() for file in around)
