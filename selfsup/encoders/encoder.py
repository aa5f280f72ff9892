"""The encoder: a timm model without its classifier, its small-image stem, loading and export."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from torch import Tensor, nn

from selfsup.config import EncoderConfig, Interpolation, ViewsConfig
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.encoders.weights import fill

SMALL = 64
"""Views up to this side, in pixels, get the small stem by default."""


class Encoder(nn.Module):
    """Images [b, 3, s, s] to features [b, dim]."""

    def __init__(self, model: nn.Module, *, channels_last: bool = True) -> None:
        """Wrap a timm model that ends in features or in an embedding."""
        super().__init__()
        self.model: Any = model
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return int(self.model.num_classes or self.model.head_hidden_size)

    def give_head(self, dim: int | None) -> None:
        """End in a new linear embedding of that width, unless it is 0 or there already; in place.

        None keeps the head that is there, else makes one of 128. It is the model's last layer, so
        it is exported with the rest.

        Raises:
            UserError: the width is below 0.
        """
        if dim is None:
            dim = self.model.num_classes or 128
        require(dim >= 0, f"--method.dim must be 0 or more, not {dim}")
        if dim and self.model.num_classes != dim:
            self.model.reset_classifier(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images, [b, 3, s, s] -> [b, dim]."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.model(images)
        return features


def build(config: EncoderConfig, size: int, *others: int, channels: int = 3) -> Encoder:
    """A new encoder for images of `size` pixels, and of `others` besides.

    Raises:
        UserError: timm has no such model, or not with these arguments, or the weights do not fit.
    """
    if not timm.is_model(config.name):
        near = did_you_mean(config.name, timm.list_models())
        raise UserError(f"timm has no model {config.name!r}{near}")
    name, args = _stem(config, size)
    if channels != 3:
        args["in_chans"] = channels
    try:
        model = timm.create_model(name, num_classes=0, **(args | _extra(config.args)))
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(f"timm cannot make {config.name} with {args}: {error}") from None
    _takes(model, config.name, size, *others, channels=channels)
    if config.weights:
        fill(model, Path(config.weights), config.name)
    encoder = Encoder(model, channels_last=config.channels_last)
    if config.compile:
        encoder.model.compile()
    return encoder


def build_for(config: EncoderConfig, views: ViewsConfig) -> Encoder:
    """A new encoder for views of these sizes and channels; see `build`."""
    return build(config, *views.sizes, channels=views.channels)


def _takes(model: Any, name: str, *sizes: int, channels: int) -> None:
    """Refuse a model that does not take images of these sizes: most ViT take but one."""
    if len(sizes) == 1 and not hasattr(model, "patch_embed"):
        return
    training = model.training
    model.eval()
    for size in sizes:
        try:
            with torch.no_grad():
                model(torch.zeros(1, channels, size, size))
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            first = " ".join(str(error).split())[:200]
            raise UserError(f"{name} does not take images of {size} pixels: {first}") from None
    model.train(training)


def _extra(text: str) -> dict[str, Any]:
    try:
        args = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        args = None
    if not isinstance(args, dict):
        raise UserError(f"encoder arguments must read like '{{channels: [32, 64]}}', not {text!r}")
    return args


def _stem(config: EncoderConfig, size: int) -> tuple[str, dict[str, Any]]:
    """The model's name and arguments for images of that size."""
    entry = timm.model_entrypoint(config.name)
    family = entry.__module__.rsplit(".", 1)[-1]
    small = config.stem == "small" or (config.stem == "auto" and size <= SMALL)
    args: dict[str, Any] = {}
    made_for = timm.get_pretrained_cfg(config.name)
    if family in ("vision_transformer", "deit", "eva"):
        args |= {"img_size": size, "dynamic_img_size": True}  # small views beside large ones
    elif made_for is not None and made_for.fixed_input_size:
        args["img_size"] = size
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
            f"{config.name} has no small stem here (ResNet, ViT and ConvNeXt have); "
            "use --encoder.stem standard"
        )
    return config.name, args


@timm.models.register_model
def small_stem_resnet(pretrained: bool = False, base: str = "resnet18", **kwargs: Any) -> Any:
    """Any ResNet of timm's with the stem for small images: 3 x 3, stride 1, no pooling.

    Source: He et al. 2016, section 4.2, as SimCLR uses it on CIFAR-10 (appendix B.9).
    """
    config = kwargs.pop("pretrained_cfg", None)
    model: Any = timm.create_model(base, **kwargs)
    old: Any = model.conv1 if isinstance(model.conv1, nn.Sequential) else [model.conv1]
    width = old[-1].out_channels
    model.conv1 = nn.Conv2d(old[0].in_channels, width, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    model.pretrained_cfg = model.default_cfg = {
        **model.pretrained_cfg,
        **({} if config is None else _plain(config)),
        "architecture": small_stem_resnet.__name__,
    }
    if pretrained:
        timm.models.load_pretrained(model, model.pretrained_cfg, num_classes=model.num_classes)
    return model


def _plain(config: Any) -> dict[str, Any]:
    settings = config if isinstance(config, dict) else config.to_dict()
    return {key: value for key, value in settings.items() if value is not None}


def export(encoder: Encoder, folder: Path, views: ViewsConfig) -> None:
    """Write config.json and model.safetensors that `timm.create_model("local-dir:...")` loads.

    The preprocessing in the configuration is the evaluation view: the shorter side resized to
    size / crop_pct and its centre cut.
    """
    preprocessing = {
        "input_size": (views.channels, views.size, views.size),
        "interpolation": views.interpolation,
        "crop_pct": crop_share(views.size),
        "crop_mode": "center",
        "mean": views.mean,
        "std": views.std,
    }
    folder.mkdir(parents=True, exist_ok=True)
    model = encoder.model.to(memory_format=torch.contiguous_format)
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config={"pretrained_cfg": preprocessing},
        safe_serialization=True,
        data_config=preprocessing,
    )
    encoder.to(
        memory_format=torch.channels_last if encoder.channels_last else torch.contiguous_format
    )


def crop_share(size: int) -> float:
    """Share of the shorter side that the evaluation view keeps: 224 of 256; all of small images."""
    return 1.0 if size <= SMALL else 0.875


def evaluation_view(settings: dict[str, Any], size: int) -> ViewsConfig:
    """What timm's preprocessing settings say of a model, at that size."""
    kind: Interpolation = "bicubic" if settings.get("interpolation") == "bicubic" else "bilinear"
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return ViewsConfig(size=size, interpolation=kind, mean=mean, std=std)


def load(folder: Path, *, blank: bool = False) -> tuple[Encoder, ViewsConfig]:
    """An exported encoder and the view it was trained for.

    Args:
        folder: a run folder or a bundle with `encoder/`, or a folder with timm's config.json.
        blank: random weights instead of its own.

    Raises:
        UserError: there is no encoder, or its files do not fit together.
    """
    inner = folder / "encoder" if (folder / "encoder" / "config.json").is_file() else folder
    try:
        settings = json.loads((inner / "config.json").read_text())
        view = settings["pretrained_cfg"]
        views = evaluation_view(view, int(view["input_size"][-1]))
        model = timm.create_model(f"local-dir:{inner}", pretrained=not blank)
    except FileNotFoundError:
        unfinished = (folder / "checkpoints").is_dir()
        why = "its run has not finished" if unfinished else "no encoder/config.json"
        raise UserError(f"{folder} holds no exported encoder: {why}") from None
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{inner} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    return Encoder(model), views
