"""Patches of a vision transformer: their embeddings, hiding some of them, encoding only some.

timm has no argument for a mask. Two places of its networks are changed while a batch passes, by
hooks: behind the patch embedding, before positions are added, a learnt token takes the place of
masked patches; and before the blocks, where positions are there already, patches are left out. The
network itself stays timm's, so that what is exported has no trace of either.

Shape letters: b images, s side in pixels, p patches, k kept patches, d width of tokens.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from selfsup.augment.masks import Grid
from selfsup.core.errors import require
from selfsup.encoders.encoder import Encoder


class Tokens(NamedTuple):
    """What an encoder makes of images."""

    features: Tensor
    """[b, dim], as `encoder(images)` returns them."""
    patches: Tensor
    """[b, p, d] of the last layer."""
    prefix: Tensor
    """[b, c, d]: class and register tokens; c may be 0."""


def require_vit(encoder: Encoder, method: str, *, left_out: bool = False) -> None:
    """Refuse encoders without patches that can be masked, or left out.

    Raises:
        UserError: it is not a plain ViT of timm, or drops patches by itself.
    """
    model = encoder.model
    kinds = VisionTransformer if left_out else (VisionTransformer, Eva)
    families = "a ViT or DeiT" if left_out else "a ViT, DeiT, EVA or DINOv3"
    require(
        isinstance(model, kinds),
        f"{method} masks patches, and {type(model).__name__} is not {families} of timm; "
        "use --encoder.name vit_tiny_patch16_224, vit_small_patch16_224 or a larger one",
    )
    dropped = getattr(getattr(model, "patch_drop", None), "prob", 0)
    require(
        not dropped,
        f"{method} masks patches itself; leave patch_drop_rate {dropped} out of --encoder.args",
    )


def patch_grid(encoder: Encoder, side: int) -> Grid:
    """Count the rows and columns of patches of a view of `side` pixels."""
    height, width = encoder.model.patch_embed.patch_size
    return Grid(side // height, side // width)


def encode_patches(encoder: Encoder, images: Tensor) -> Tokens:
    """Encode images into their features and the tokens of their patches. [b, 3, s, s]."""
    model: Any = encoder.model
    if encoder.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    tokens = model.forward_features(images)
    c = model.num_prefix_tokens
    return Tokens(model.forward_head(tokens), tokens[:, c:], tokens[:, :c])


@contextlib.contextmanager
def masked_patches(encoder: Encoder, masks: Tensor, token: Tensor) -> Iterator[None]:
    """Let `token` [d] take the place of masked patches, bool [b, p], in this block."""

    def replace(module: Any, inputs: Any, patches: Tensor) -> Tensor:  # [b, h, w, d] or [b, p, d]
        return torch.where(masks.view(*patches.shape[:-1], 1), token.to(patches.dtype), patches)

    hook = encoder.model.patch_embed.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def only_patches(encoder: Encoder, kept: Tensor) -> Iterator[None]:
    """Encode only the patches at positions `kept` [b, k], in their order, in this block."""
    c = encoder.model.num_prefix_tokens

    def select(module: Any, inputs: tuple[Tensor]) -> Tensor:  # [b, c + p, d]
        prefix, patches = inputs[0][:, :c], inputs[0][:, c:]
        return torch.cat([prefix, rows_at(patches, kept)], 1)

    hook = encoder.model.norm_pre.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def rows_at(x: Tensor, positions: Tensor) -> Tensor:
    """Take rows at positions, of each image its own. [b, p, d], [b, k] -> [b, k, d]."""
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))


def patch_pixels(encoder: Encoder, images: Tensor) -> Tensor:
    """Cut images into the values of their patches. [b, 3, s, s] -> [b, p, 3 x pixels].

    Columns and rows that fill no patch are left out, as by the patch embedding.
    """
    height, width = encoder.model.patch_embed.patch_size
    rows, columns = images.shape[2] // height, images.shape[3] // width
    whole = images[:, :, : rows * height, : columns * width]
    return (
        whole.unfold(2, height, height)
        .unfold(3, width, width)
        .permute(0, 2, 3, 1, 4, 5)
        .flatten(3)
        .flatten(1, 2)
    )
