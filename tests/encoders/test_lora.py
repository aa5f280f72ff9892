"""LoRA: a product of two narrow matrices beside each linear layer, merged on export."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from launch import called
from pictures import folder
from safetensors.torch import load_file
from torch import Tensor, nn

from selfsup.core.seeds import generator
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.lora import ALPHA, LoRALinear, add_lora, without_lora

SHALLOW = {"embed_dim": 32, "depth": 2, "num_heads": 2}
VITS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("test_vit", {"img_size": 32}),
    "beit": ("beit_base_patch16_224", SHALLOW | {"img_size": 32}),
    "eva": ("eva02_tiny_patch14_224", SHALLOW | {"img_size": 28}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "img_size": 56},
    ),
}


def vit(name: str) -> tuple[Encoder, Tensor]:
    """A small ViT in evaluation mode, and images that it takes."""
    torch.manual_seed(0)
    architecture, args = VITS[name]
    model = timm.create_model(architecture, num_classes=0, **args)
    side = args["img_size"]
    return Encoder(model, channels_last=False).eval(), torch.randn(2, 3, side, side)


def layers(encoder: Encoder) -> list[LoRALinear]:
    return [module for module in encoder.modules() if isinstance(module, LoRALinear)]


def test_a_layer_adds_the_scaled_product_of_its_matrices() -> None:
    linear = nn.Linear(5, 3).double()
    layer = LoRALinear(linear, 2, generator(0, 0, "lora")).double()
    nn.init.normal_(layer.b)
    layer.requires_grad_(False)
    x = torch.randn(4, 5, dtype=torch.float64)
    for row, out in zip(x, layer(x), strict=True):
        for i in range(3):
            expected = linear.bias[i] + sum(linear.weight[i, j] * row[j] for j in range(5))
            for r in range(2):
                inner = sum(layer.a[r, j] * row[j] for j in range(5))
                expected = expected + ALPHA / 2 * layer.b[i, r] * inner
            assert float(out[i]) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("name", VITS)
def test_lora_changes_no_output_before_the_first_step(name: str) -> None:
    encoder, images = vit(name)
    before = encoder(images)
    add_lora(encoder, 2, name=name, seed=0)
    assert torch.equal(encoder(images), before)


@pytest.mark.parametrize("name", VITS)
def test_every_matrix_of_every_layer_has_a_gradient_also_where_timm_reads_the_weight(
    name: str,
) -> None:
    encoder, images = vit(name)
    add_lora(encoder, 2, name=name, seed=0)
    for layer in layers(encoder):
        nn.init.normal_(layer.b, std=0.02)
    encoder(images).square().sum().backward()
    assert len(layers(encoder)) >= 8
    for layer in layers(encoder):
        assert layer.linear.weight.grad is None
        for matrix in (layer.a, layer.b):
            assert matrix.grad is not None
            assert matrix.grad.abs().max() > 0


@pytest.mark.parametrize("name", VITS)
def test_a_merged_encoder_has_timms_names_and_computes_the_same(name: str) -> None:
    encoder, images = vit(name)
    names = list(encoder.state_dict())
    add_lora(encoder, 2, name=name, seed=0)
    for layer in layers(encoder):
        nn.init.normal_(layer.b, std=0.02)
    merged = without_lora(encoder)
    assert list(merged.state_dict()) == names
    assert layers(encoder), "the one that is trained keeps its matrices"
    torch.testing.assert_close(merged(images), encoder(images), rtol=0, atol=1e-5)
    plain, _ = vit(name)
    assert not torch.allclose(merged(images), plain(images), atol=1e-3)


def test_without_lora_an_encoder_is_itself() -> None:
    encoder, _ = vit("vit")
    assert without_lora(encoder) is encoder


def test_rank_8_of_a_layer_of_192_trains_3072_numbers() -> None:
    layer = LoRALinear(nn.Linear(192, 192), 8, generator(0, 0, "lora"))
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == 3072


def test_encoders_of_one_run_draw_the_same_numbers_and_those_of_another_seed_do_not() -> None:
    drawn = []
    for seed in (0, 0, 1):
        encoder, _ = vit("vit")
        add_lora(encoder, 4, name="test_vit", seed=seed)
        drawn.append(layers(encoder)[3].a)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_batch_norms_of_an_encoder_with_lora_keep_their_statistics() -> None:
    encoder, images = vit("vit")
    encoder.model.norm_pre = nn.BatchNorm1d(5)  # 4 patches and the class
    add_lora(encoder, 4, name="test_vit", seed=0)
    encoder.train()
    encoder(images)
    assert int(encoder.model.norm_pre.num_batches_tracked) == 0


def test_a_run_with_lora_exports_a_folder_that_timm_loads(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "images"), tmp_path / "run"
    flags = ("--encoder.name", "test_vit", "--views.size", "32", "--lora", "4", "--no-report")
    more = ("--classes", "3", "--images", "2", "--steps", "3", "--optim.lr", "0.1")
    done = called(
        "recipes/finetune_triplet.py", "--data", data, "--out", out, *flags, *more, "--method.dim=8"
    )
    assert done.returncode == 0, done.stderr
    assert "frozen     " in done.stdout
    loaded = timm.create_model(f"local-dir:{out / 'encoder'}", pretrained=True).eval()
    state = load_file(max((out / "checkpoints").glob("step-*")) / "model.safetensors")
    a, b = (state[f"encoder.model.blocks.0.attn.qkv.{x}"] for x in "ab")
    frozen = state["encoder.model.blocks.0.attn.qkv.linear.weight"]
    assert b.abs().max() > 0
    torch.testing.assert_close(
        loaded.state_dict()["blocks.0.attn.qkv.weight"], frozen + ALPHA / 4 * b @ a
    )
