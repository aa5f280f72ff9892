"""Image sizes that a network takes."""

from functools import cache
from typing import Any

import timm
import torch

from selfsup.core.errors import UserError
from selfsup.core.progress import say
from selfsup.encoders.published import base_name

DYNAMIC = ("vision_transformer", "deit", "eva")
"""Files of timm whose networks take any whole number of patches."""


def family_of(name: str) -> str:
    """Return the name of timm's file in which a model is."""
    return timm.model_entrypoint(base_name(name)).__module__.rsplit(".", 1)[-1]


def size_arguments(name: str, size: int) -> dict[str, Any]:
    """Arguments of timm.create_model for images of that size, where the network needs any."""
    pretrained = timm.get_pretrained_cfg(name)
    if family_of(name) in DYNAMIC:
        return {"img_size": size, "dynamic_img_size": True}  # accepts local views too
    if pretrained is not None and pretrained.fixed_input_size:
        return {"img_size": size}
    return {}


@cache
def patch_of(name: str, patch: int = 0) -> int:
    """Return the side of a ViT's patches in pixels: `patch` if that is above 0; 1 for others."""
    if patch or family_of(name) not in DYNAMIC:
        return patch or 1
    with torch.device("meta"):
        model: Any = timm.create_model(base_name(name), num_classes=0, depth=1)
    return int(model.patch_embed.patch_size[0])


def fitting_size(name: str, size: int, patch: int = 0) -> int:
    """Return a size, or the next one of whole patches, and say so.

    Example: 98 for 96 pixels and patches of 14.

    Args:
        name: of the timm model.
        size: in pixels; 0 stays 0.
        patch: side of its patches, where it is not the usual one of the model.
    """
    side = patch_of(name, patch)
    fitting = -(-size // side) * side
    if fitting != size:
        say(f"views of {fitting} pixels, not {size}: {name} has patches of {side} pixels")
    return fitting


def check_sizes(model: Any, name: str, *sizes: int, channels: int) -> None:
    """Refuse sizes that a model does not accept: most ViT accept one.

    Raises:
        UserError: it does not.
    """
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
