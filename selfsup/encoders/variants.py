"""Variants of timm's models, registered with timm: a stem for small images, other pooling.

An export of one loads by timm alone after `import selfsup`.

Shape letters: b images, t tokens (prefix tokens, then patches), d width of a token.
"""

import re
from typing import Any

import timm
import torch
from torch import Tensor, nn

from selfsup.config import Pooling
from selfsup.core.errors import UserError, require

TIMMS = {"cls": "token", "mean": "avg", "cls+mean": "token"}
AUTHORS: tuple[tuple[str, Pooling], ...] = (("dinov3", "cls"),)
"""Families whose authors evaluate other features than those that timm makes by default: DINOv3's
k-NN and linear probe take the class token (Siméoni et al. 2025, section 6.1), timm the mean."""


@timm.models.register_model
def small_stem_resnet(pretrained: bool = False, base: str = "resnet18", **kwargs: Any) -> Any:
    """Build any ResNet of timm with the stem for small images: 3 x 3, stride 1, no pooling.

    Source: He et al. 2016, section 4.2, as SimCLR uses it on CIFAR-10 (appendix B.9).
    """
    config = kwargs.pop("pretrained_cfg", None)
    model: Any = timm.create_model(base, **kwargs)
    old: Any = model.conv1 if isinstance(model.conv1, nn.Sequential) else [model.conv1]
    width = old[-1].out_channels
    model.conv1 = nn.Conv2d(old[0].in_channels, width, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return _registered(model, small_stem_resnet.__name__, config, pretrained)


@timm.models.register_model
def class_token_and_mean(pretrained: bool = False, base: str = "", **kwargs: Any) -> Any:
    """Build any ViT of timm whose features are its class token beside the mean of its patches."""
    config = kwargs.pop("pretrained_cfg", None)
    model: Any = timm.create_model(base, **kwargs)
    model = _with_class_token_and_mean(model, base)
    return _registered(model, class_token_and_mean.__name__, config, pretrained)


def _registered(model: Any, name: str, config: Any, pretrained: bool) -> Any:
    """Give a variant its own name in exports, and load the weights of one."""
    model.pretrained_cfg = model.default_cfg = {
        **model.pretrained_cfg,
        **({} if config is None else _plain(config)),
        "architecture": name,
    }
    if pretrained:
        timm.models.load_pretrained(model, model.pretrained_cfg, num_classes=model.num_classes)
    return model


def _plain(config: Any) -> dict[str, Any]:
    settings = config if isinstance(config, dict) else config.to_dict()
    return {key: value for key, value in settings.items() if value is not None}


class ClassTokenAndMean:
    """Mixed into a timm model: its features are the class token beside the mean of its patches."""

    def pool(self: Any, x: Tensor, pool_type: str | None = None) -> Tensor:
        """[b, t, d] -> [b, 2d]. A norm after pooling is one of d: it takes each half."""
        patches = x[:, self.num_prefix_tokens :].mean(1)
        return torch.cat([self.half_norm(x[:, 0]), self.half_norm(patches)], 1)

    def reset_classifier(self: Any, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by one of another width, or by none."""
        self.num_classes = num_classes
        weight = next(self.parameters())
        head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.head = head.to(weight.device, weight.dtype)


def _with_class_token_and_mean(model: Any, base: str) -> Any:
    """Change a timm model in place so that its features are 2d wide."""
    kind = type(model)
    model.__class__ = type(f"ClassTokenAndMean{kind.__name__}", (ClassTokenAndMean, kind), {})
    model.num_features = model.head_hidden_size = 2 * model.embed_dim
    model.half_norm, model.fc_norm = model.fc_norm, nn.Identity()
    model._model_args = {**getattr(model, "_model_args", {}), "base": base}
    model.reset_classifier(model.num_classes)
    return model


def authors_pooling(name: str) -> Pooling:
    """Return the pooling that the authors of a timm model evaluate with."""
    return next((pooling for part, pooling in AUTHORS if re.search(part, name)), "native")


def with_pooling(model: Any, pooling: Pooling, name: str) -> Any:
    """Change the pooling of a timm model in place; its weights stay.

    Args:
        model: the timm model.
        pooling: "cls", "mean", "cls+mean", "native" for timm's or "" for the authors'.
        name: of the model.

    Raises:
        UserError: the model has no such tokens.
    """
    pooling = pooling or authors_pooling(name)
    if pooling == "native":
        return model
    tokens = hasattr(model, "num_prefix_tokens")
    if pooling == "mean" and not tokens:
        return model  # a network without tokens takes the mean of its last map already
    require(
        pooling == "mean" or (tokens and getattr(model, "cls_token", None) is not None),
        f"{name} has no class token for --encoder.pooling {pooling}: give mean or native",
    )
    require(
        pooling != "cls+mean" or hasattr(model, "pool"),
        f"{name} pools in a way of its own: give --encoder.pooling cls, mean or native",
    )
    try:
        model.reset_classifier(model.num_classes, global_pool=TIMMS[pooling])
    except (AssertionError, TypeError) as error:
        raise UserError(f"{name} cannot have --encoder.pooling {pooling}: {error}") from None
    if pooling != "cls+mean":
        return model
    model = _with_class_token_and_mean(model, name)
    return _registered(model, class_token_and_mean.__name__, None, pretrained=False)
