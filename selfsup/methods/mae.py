"""MAE: an encoder sees a quarter of the patches, and a light decoder paints the others.

An image's error depends on no other image, so what passes between processes is that error, one
number an image, beside its features for the log. Pixels and predictions, 150,000 numbers each for
an image of 224 pixels, stay where they are, and the gradient is exact all the same: the loss is the
mean of the errors over the global batch.

Shape letters: b local images, s side in pixels, p patches, k visible and m masked ones, d width of
the encoder, c width of the decoder, q values of a patch.

Source: He et al. 2022, https://arxiv.org/abs/2111.06377.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.augment.masks import patch_orders
from selfsup.config import MAEConfig, ViewsConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.core.transfers import send
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.patch_tokens import (
    encode_patches,
    only_patches,
    patch_grid,
    patch_pixels,
    require_vit,
    rows_at,
)
from selfsup.losses.reconstruction import masked_pixels
from selfsup.methods.method import Method, Views
from selfsup.methods.signs import collapse_signs


class Reconstructions(NamedTuple):
    """Features of the visible patches, and how well the others were painted."""

    features: Tensor
    """[b, dim]; they have no loss of their own."""
    error: Tensor
    """[b], see `masked_pixels`."""


class MAE(Method[Reconstructions]):
    """The decoder is dropped after training; the encoder never saw a mask token."""

    uses_labels = False

    def __init__(self, encoder: Encoder, config: MAEConfig) -> None:
        """Make a decoder beside the encoder.

        Raises:
            UserError: the encoder is no ViT, or a setting makes no sense.
        """
        super().__init__()
        require_positive(config, "depth", "dim", "heads")
        masked = config.masked
        require(0 < masked < 1, f"--method.masked must be between 0 and 1, not {masked}")
        require(
            config.dim % config.heads == 0 and config.dim % 4 == 0,
            f"--method.dim {config.dim} must be a multiple of 4 and of --method.heads "
            f"{config.heads}",
        )
        require_vit(encoder, "MAE", left_out=True)
        self.encoder = encoder
        self.config = config
        model = encoder.model
        height, width = model.patch_embed.patch_size
        values = height * width * model.patch_embed.proj.in_channels
        self.decoder = Decoder(model.embed_dim, values, config)

    def visible(self, patches: int) -> int:
        """How many of the patches of an image the encoder sees.

        Raises:
            UserError: none, or all of them.
        """
        k = round(patches * (1 - self.config.masked))
        require(
            0 < k < patches,
            f"--method.masked {self.config.masked} of {patches} patches leaves {k} visible; use a "
            "larger --views.size, smaller patches or another fraction",
        )
        return k

    def draw(self, images: int, views: Sequence[ViewsConfig], info: StepInfo) -> tuple[Tensor, ...]:
        """Draw a random order of the patches of each image, the visible ones first: [images, p]."""
        patches = patch_grid(self.encoder, views[0].size).patches
        self.visible(patches)
        return (patch_orders(images, patches, info.generator("masks")),)

    def embed(self, views: Views) -> Reconstructions:
        """Encode the visible patches, paint the others, and compare them with the pixels.

        Raises:
            UserError: there is more than one view.
        """
        *views_by_size, order = views
        count = sum(group.shape[1] for group in views_by_size)
        require(count == 1, f"MAE reconstructs one view; --views.views is {count}")
        images = views_by_size[0][:, 0]
        k = self.visible(order.shape[1])
        with only_patches(self.encoder, order[:, :k]):
            tokens = encode_patches(self.encoder, images)
        grid = patch_grid(self.encoder, images.shape[-1])
        predictions = self.decoder(tokens.prefix, tokens.patches, order, grid)
        pixels = rows_at(patch_pixels(self.encoder, images), order[:, k:])
        return Reconstructions(tokens.features, masked_pixels(predictions, pixels))

    def loss(self, embeddings: Reconstructions, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the mean error over the global batch."""
        return embeddings.error.mean()

    def signs(
        self, embeddings: Reconstructions, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Compute collapse signs of the features of the visible patches."""
        return collapse_signs(embeddings.features)


class Decoder(nn.Module):
    """A few transformer blocks over all patches, from the tokens of the visible ones."""

    def __init__(self, width: int, values: int, config: MAEConfig) -> None:
        """Make it for tokens of that width and patches of so many values."""
        super().__init__()
        self.embed = nn.Linear(width, config.dim)
        self.mask_token = nn.Parameter(torch.empty(config.dim))
        self.blocks = nn.Sequential(
            *(Block(config.dim, config.heads, qkv_bias=True) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.dim)
        self.pixels = nn.Linear(config.dim, values)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as in the paper's code
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self, prefix: Tensor, visible: Tensor, order: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Paint the masked patches.

        Args:
            prefix: [b, r, d] class and register tokens; r may be 0.
            visible: [b, k, d] tokens of the first k patches of `order`.
            order: [b, p] positions of all patches, those of the visible ones first.
            grid: rows and columns of patches.

        Returns:
            [b, m, q] of the remaining patches of `order`.
        """
        k, r = visible.shape[1], prefix.shape[1]
        x = self.embed(torch.cat([prefix, visible], 1))  # [b, r + k, c]
        hidden = self.mask_token.to(x.dtype).expand(len(x), order.shape[1] - k, -1)
        place = build_sincos2d_pos_embed(list(grid), x.shape[2], dtype=torch.float32)
        place = send(place, x.device, x.dtype)[order]  # [b, p, c]
        patches = torch.cat([x[:, r:], hidden], 1) + place  # in their drawn order
        x = self.norm(self.blocks(torch.cat([x[:, :r], patches], 1)))
        out: Tensor = self.pixels(x[:, r + k :])
        return out
