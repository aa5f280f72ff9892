"""Patches of a ViT: what is masked or left out is not seen, and the network is timm's again."""

import pytest
import torch
from torch import Tensor

from selfsup.augment.masks import Grid
from selfsup.config import EncoderConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import Encoder, build
from selfsup.encoders.patch_tokens import (
    encode_patches,
    masked_patches,
    only_patches,
    patch_grid,
    patch_pixels,
    require_vit,
)

SIDE = 32
VITS = {
    "vit_tiny_patch16_224": "{embed_dim: 12, depth: 2, num_heads: 3}",
    "vit_small_patch14_reg4_dinov2": "{embed_dim: 12, depth: 2, num_heads: 3}",
    "vit_base_patch16_siglip_gap_224": "{embed_dim: 12, depth: 2, num_heads: 3}",
    "deit_tiny_distilled_patch16_224": "{embed_dim: 12, depth: 2, num_heads: 3}",
}
EVAS = {
    "eva02_tiny_patch14_224": "{embed_dim: 24, depth: 2, num_heads: 2, patch_size: 4}",
    "vit_small_patch16_dinov3": "{embed_dim: 24, depth: 2, num_heads: 2, patch_size: 4}",
}
ALL = VITS | EVAS


def vit(name: str) -> Encoder:
    torch.manual_seed(0)
    return build(EncoderConfig(name=name, args=ALL[name]), SIDE).double().eval()


def images(seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, SIDE, SIDE, generator=g, dtype=torch.float64)


def repainted(x: Tensor, masks: Tensor) -> Tensor:
    """The images with other pixels in the masked patches, 4 pixels wide. [b, 64]."""
    where = masks.view(-1, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.where(where, images(seed=1), x)


def some_masks() -> Tensor:
    masks = torch.rand(3, 64, generator=torch.Generator().manual_seed(0)) < 0.3
    masks[2] = False
    return masks


@pytest.mark.parametrize("name", ALL)
def test_features_are_those_of_the_encoder_and_patches_are_all_there(name: str) -> None:
    encoder, x = vit(name), images()
    with torch.no_grad():
        tokens = encode_patches(encoder, x)
        assert torch.equal(tokens.features, encoder(x))
    assert patch_grid(encoder, SIDE) == Grid(8, 8)
    assert tokens.patches.shape == (3, 64, encoder.model.embed_dim)
    assert tokens.prefix.shape[1] == encoder.model.num_prefix_tokens


@pytest.mark.parametrize("name", ALL)
def test_masked_pixels_are_not_seen_but_their_place_is(name: str) -> None:
    encoder, x, masks = vit(name), images(), some_masks()
    token = torch.randn(encoder.model.embed_dim, dtype=torch.float64)
    with torch.no_grad():
        plain = encode_patches(encoder, x)
        with masked_patches(encoder, masks, token):
            tokens, again = (encode_patches(encoder, y) for y in (x, repainted(x, masks)))
        assert torch.equal(tokens.features, again.features)
        assert torch.equal(tokens.patches, again.patches)
        assert torch.equal(tokens.features[2], plain.features[2])  # nothing is masked there
        assert not torch.allclose(tokens.features[:2], plain.features[:2])
        hidden = tokens.patches[0][masks[0]]  # of one token, told from each other by their places
        assert torch.pdist(hidden).min() > 1e-12  # of DINOv3 only by its attention, scaled by 1e-5
        assert torch.equal(encode_patches(encoder, x).features, plain.features)  # timm's again


@pytest.mark.parametrize("name", VITS)
def test_patches_that_are_left_out_are_not_seen_and_the_order_of_the_others_is_free(
    name: str,
) -> None:
    encoder, x = vit(name), images()
    order = torch.rand(3, 64, generator=torch.Generator().manual_seed(1)).argsort(1)
    kept = order[:, :16]
    hidden = torch.ones(3, 64, dtype=torch.bool).scatter(1, kept, value=False)
    with torch.no_grad():
        plain = encode_patches(encoder, x)
        with only_patches(encoder, kept):
            tokens, again = (encode_patches(encoder, y) for y in (x, repainted(x, hidden)))
        with only_patches(encoder, kept.flip(1)):
            turned = encode_patches(encoder, x)
        with only_patches(encoder, order):
            whole = encode_patches(encoder, x)
    assert tokens.patches.shape[1] == 16
    assert torch.equal(tokens.patches, again.patches)
    torch.testing.assert_close(turned.patches, tokens.patches.flip(1))
    torch.testing.assert_close(turned.features, tokens.features)
    torch.testing.assert_close(whole.features, plain.features)
    assert not torch.allclose(tokens.features, plain.features)


def test_hooks_are_gone_after_an_error() -> None:
    encoder = vit("vit_tiny_patch16_224")
    with pytest.raises(ZeroDivisionError), masked_patches(encoder, some_masks(), torch.zeros(12)):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), only_patches(encoder, torch.zeros(3, 1).long()):
        raise ZeroDivisionError
    assert not encoder.model.patch_embed._forward_hooks
    assert not encoder.model.norm_pre._forward_pre_hooks


def test_local_views_have_patches_of_their_own_size() -> None:
    encoder = vit("vit_tiny_patch16_224")
    x, masks = images()[..., :16, :16], some_masks()[:, :16]
    assert patch_grid(encoder, 16) == Grid(4, 4)
    with masked_patches(encoder, masks, torch.zeros(12, dtype=torch.float64)):
        assert encode_patches(encoder, x).patches.shape == (3, 16, 12)


def test_pixels_of_a_patch_are_those_of_its_square() -> None:
    encoder, x = vit("vit_tiny_patch16_224"), images()
    pixels = patch_pixels(encoder, x)
    assert pixels.shape == (3, 64, 48)
    for row in range(8):
        for column in range(8):
            square = x[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(pixels[:, 8 * row + column], square.flatten(1))


def test_pixels_that_fill_no_patch_are_left_out() -> None:
    encoder, x = vit("vit_tiny_patch16_224"), images()[..., :30, :30]
    assert torch.equal(patch_pixels(encoder, x), patch_pixels(encoder, x[..., :28, :28]))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilevit_xxs"])
def test_other_networks_are_refused_by_name_and_with_a_network_that_works(name: str) -> None:
    encoder = build(EncoderConfig(name=name), 64)
    kind = type(encoder.model).__name__
    message = f"MAE masks patches, and {kind} is not .* use --encoder.name vit_tiny_patch16_224"
    with pytest.raises(UserError, match=message):
        require_vit(encoder, "MAE")


def test_patches_are_not_left_out_of_a_network_whose_positions_are_in_its_attention() -> None:
    encoder = vit("eva02_tiny_patch14_224")
    require_vit(encoder, "DINOv2")
    with pytest.raises(UserError, match="MAE masks patches, and Eva is not a ViT or DeiT of timm"):
        require_vit(encoder, "MAE", left_out=True)


def test_a_network_that_drops_patches_itself_is_refused() -> None:
    args = "{embed_dim: 12, depth: 1, num_heads: 3, patch_drop_rate: 0.5}"
    encoder = build(EncoderConfig(name="vit_tiny_patch16_224", args=args), SIDE)
    with pytest.raises(UserError, match=r"leave patch_drop_rate 0\.5 out of --encoder.args"):
        require_vit(encoder, "DINOv2")
