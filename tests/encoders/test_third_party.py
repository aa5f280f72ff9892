"""Checkpoints as other projects write them, loaded into timm's networks: the same features."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from weight_families import load_third_party

from selfsup.config import Format
from selfsup.core.errors import UserError
from selfsup.encoders.third_party import select_tensors
from selfsup.encoders.weights import read_file

pytestmark = pytest.mark.slow

Named = dict[str, Tensor]


def random_resnet() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.resnet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # random statistics, so that a mistake shows
            statistics: Any = module
            nn.init.uniform_(statistics.running_mean, -0.2, 0.2)
            nn.init.uniform_(statistics.running_var, 0.5, 1.5)
    model.fc = nn.Identity()
    return model.eval()


def random_vit() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=3, hidden_dim=192, mlp_dim=768
    )
    model.heads = nn.Identity()
    return model.eval()


def add_prefix(prefix: str, named: Named) -> Named:
    return {prefix + key: value for key, value in named.items()}


def sequential_names(named: Named) -> Named:
    """Rename tensors as nn.Sequential(*children) does."""
    position = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}}
    return {
        ".".join([position[key.split(".")[0]], *key.split(".")[1:]]): value
        for key, value in named.items()
    }


def files(named: Named) -> dict[tuple[Format, bool], Any]:
    """Each project's file, by format and whether `named` is the moving average in it."""
    zeros = {key: torch.zeros_like(value) for key, value in named.items()}
    head = {"projection_head.0.weight": torch.zeros(3, 512)}
    trunk = {"trunk": add_prefix("_feature_blocks.", named), "heads": {"0.weight": torch.zeros(2)}}
    return {
        ("torchvision", False): {**named, "fc.weight": torch.zeros(1000, 512)},
        ("timm", False): {"state_dict": add_prefix("module.", named), "state_dict_ema": zeros},
        ("timm", True): {"state_dict": zeros, "state_dict_ema": add_prefix("module.", named)},
        ("lightly", False): {
            "state_dict": add_prefix("backbone.", sequential_names(named))
            | add_prefix("teacher_backbone.", sequential_names(zeros))
            | head
        },
        ("lightly", True): {
            "state_dict": add_prefix("backbone.", sequential_names(zeros))
            | add_prefix("backbone_momentum.", sequential_names(named))
        },
        ("solo", False): {
            "state_dict": add_prefix("backbone.", named) | add_prefix("momentum_backbone.", zeros),
            "hyper_parameters": {"lr": 0.3},
        },
        ("solo", True): {
            "state_dict": add_prefix("backbone.", zeros) | add_prefix("momentum_backbone.", named)
        },
        ("moco", False): {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": add_prefix("module.encoder_q.", named)
            | add_prefix("module.encoder_k.", zeros)
            | {"module.encoder_q.fc.0.weight": torch.zeros(2, 2), "module.queue": torch.zeros(2)},
        },
        ("moco", True): {
            "state_dict": add_prefix("module.base_encoder.", zeros)
            | add_prefix("module.momentum_encoder.", named)
        },
        ("dino", False): {
            "student": add_prefix("module.backbone.", named) | {"module.head.mlp.0.weight": head},
            "teacher": add_prefix("module.backbone.", zeros),
            "args": argparse.Namespace(lr=np.float64(0.1)),
        },
        ("dino", True): {
            "student": add_prefix("module.backbone.", zeros),
            "teacher": add_prefix("backbone.", named),
        },
        ("vissl", False): {
            "classy_state_dict": {"base_model": {"model": trunk}},
            "loss": np.float32(3),
        },
        ("mmselfsup", False): {
            "meta": {"epoch": 1},
            "state_dict": add_prefix("backbone.", named) | add_prefix("encoder_k.module.0.", zeros),
        },
        ("mmselfsup", True): {
            "state_dict": add_prefix("backbone.", zeros) | add_prefix("target_net.module.0.", named)
        },
    }


CASES = list(files({"conv1.weight": torch.zeros(1)}))


@pytest.mark.slow
@pytest.mark.parametrize(("format", "teacher"), CASES)
def test_a_resnet_of_every_project_keeps_its_features(
    tmp_path: Path, format: Format, teacher: bool
) -> None:
    theirs = random_resnet()
    torch.save(files(dict(theirs.state_dict()))[format, teacher], tmp_path / "x.pth")
    named = select_tensors(
        read_file(tmp_path / "x.pth"), tmp_path / "x.pth", format, teacher=teacher
    )
    ours = timm.create_model("resnet18", num_classes=0).eval()
    match = load_third_party(ours, named, tmp_path / "x.pth", format)
    assert (match.missing, match.unused) == ([], [])
    assert str(match) == "100 of 100 tensors"
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def rename(named: Named, *pairs: tuple[str, str]) -> Named:
    renamed = {}
    for key, value in named.items():
        for old, new in pairs:
            key = key.replace(old, new)
        renamed[key] = value
    return renamed


MM = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("blocks.", "layers."),
    (".norm1.", ".ln1."),
    (".norm2.", ".ln2."),
    (".mlp.fc1.", ".ffn.layers.0.0."),
    (".mlp.fc2.", ".ffn.layers.1."),
)


def test_a_torchvision_transformer_keeps_its_features(tmp_path: Path) -> None:
    theirs = random_vit()
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, num_heads=3, num_classes=0
    ).eval()
    named = select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", "torchvision")
    assert not load_third_party(ours, named, tmp_path / "x.pth", "torchvision").missing
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("format", ["mmselfsup", "dino"])
def test_transformers_of_other_projects_keep_their_features(tmp_path: Path, format: Format) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", num_classes=0).eval()
    named = dict(theirs.state_dict())
    if format == "mmselfsup":
        named = rename(named, *MM)
        named = {f"ln1.{k[5:]}" if k.startswith("norm.") else k: v for k, v in named.items()}
        torch.save({"state_dict": add_prefix("backbone.", named)}, tmp_path / "x.pth")
    else:  # DINOv2 in chunks of blocks, with a token for masks
        named = {k.replace("blocks.", "blocks.0."): v for k, v in named.items()}
        torch.save({**named, "mask_token": torch.zeros(1, 64)}, tmp_path / "x.pth")
    ours = timm.create_model("test_vit", num_classes=0).eval()
    translated = select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", format)
    match = load_third_party(ours, translated, tmp_path / "x.pth", format)
    assert (match.missing, match.unused) == ([], [])
    images = torch.randn(2, 3, 160, 160)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit4", "test_nfnet"])
def test_timms_names_are_not_changed(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = timm.create_model(name, num_classes=0)
    named = select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", "timm")
    assert not load_third_party(ours, named, tmp_path / "x.pth", "timm").missing
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in theirs.state_dict().items())


def test_dinov2_with_registers_has_its_position_added_to_the_class_token(tmp_path: Path) -> None:
    named = {
        "cls_token": torch.ones(1, 1, 4),
        "pos_embed": torch.arange(20.0).view(1, 5, 4),
        "register_tokens": torch.zeros(1, 2, 4),
        "blocks.0.0.norm1.weight": torch.zeros(4),
    }
    torch.save(named, tmp_path / "x.pth")
    translated = select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", "dino")
    assert translated["cls_token"].flatten().tolist() == [1, 2, 3, 4]
    assert translated["pos_embed"].shape == (1, 4, 4)
    assert {"reg_token", "blocks.0.norm1.weight"} <= translated.keys()


def test_blocks_of_efficientnet_pytorch_get_the_names_of_their_stages(tmp_path: Path) -> None:
    model: Any = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    named = {
        "_conv_stem.weight": torch.ones_like(model.conv_stem.weight),
        "_blocks.0._project_conv.weight": torch.full_like(model.blocks[0][0].conv_pw.weight, 2),
        "_blocks.2._expand_conv.weight": torch.full_like(model.blocks[1][1].conv_pw.weight, 3),
        "_blocks.2._bn2.bias": torch.full_like(model.blocks[1][1].bn3.bias, 4),
        "_bn1.bias": torch.full_like(model.bn2.bias, 5),
        "_fc.weight": torch.zeros(1000, 1280),
    }
    match = load_third_party(model, named, tmp_path, "efficientnet", partial=True)
    assert (match.matched, match.unused) == (5, [])
    assert model.blocks[0][0].conv_pw.weight.mean() == 2
    assert model.blocks[1][1].conv_pw.weight.mean() == 3
    assert model.blocks[1][1].bn3.bias.mean() == 4
    assert model.bn2.bias.mean() == 5


def test_settings_that_tensors_do_not_contain_follow_the_format(tmp_path: Path) -> None:
    import selfsup.encoders.encoder  # noqa: F401  (registers the small stem)

    small = timm.create_model("small_stem_resnet", base="resnet18", num_classes=0)
    named = dict(small.state_dict())
    load_third_party(small, named, tmp_path, "solo")
    stem: Any = small.conv1
    assert stem.padding == (2, 2)
    load_third_party(small, named, tmp_path, "lightly")
    assert isinstance(small.act1, nn.Identity)
    vit: Any = timm.create_model("vit_small_patch16_224", depth=1, num_classes=0)
    load_third_party(vit, dict(vit.state_dict()), tmp_path, "moco")
    assert (vit.blocks[0].attn.num_heads, vit.blocks[0].attn.head_dim) == (12, 32)


def test_positions_of_another_size_are_resampled(tmp_path: Path) -> None:
    large = timm.create_model("test_vit", img_size=96, num_classes=0)
    ours = timm.create_model("test_vit", img_size=64, num_classes=0)
    assert not load_third_party(ours, dict(large.state_dict()), tmp_path, "timm").missing


def test_a_partial_match_says_what_is_missing(tmp_path: Path) -> None:
    model = timm.create_model("resnet18", num_classes=0)
    named = {k: v for k, v in model.state_dict().items() if not k.startswith("layer4.")}
    with pytest.raises(UserError, match=r"has only 75 of 100 tensors; not layer4.0.conv1.weight"):
        load_third_party(model, named, tmp_path, "timm")
    match = load_third_party(model, named, tmp_path, "timm", partial=True)
    assert match.matched == 75
    assert match.missing[0] == "layer4.0.conv1.weight"
    assert "75 of 100 tensors; not layer4.0.conv1.weight" in str(match)


def test_a_checkpoint_without_any_match_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save({"state_dict": {"backbone.a.weight": torch.zeros(2)}}, file)
    named = select_tensors(read_file(file), file, "solo")
    with pytest.raises(UserError, match=r"no tensor of .*x.pth fits .* has 1 tensors such as a"):
        load_third_party(timm.create_model("test_resnet"), named, file, "solo")


def test_a_file_without_a_moving_average_says_so(tmp_path: Path) -> None:
    torch.save({"state_dict": {"backbone.a": torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="has no moving average: none of momentum_backbone"):
        select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", "solo", teacher=True)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def test_code_in_a_checkpoint_is_never_run_and_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": Evil()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"more than tensors in it \(builtins.exec\)"):
        select_tensors(read_file(tmp_path / "x.ckpt"), tmp_path / "x.ckpt", "lightly")


@pytest.mark.parametrize(
    ("format", "content", "teacher", "sentence"),
    [
        ("timm", {"state_dict": {}}, True, "no state_dict_ema or model_ema in it"),
        ("dino", {"student": {}}, True, "has no moving average: no teacher in it"),
        ("vissl", {"model": {}}, True, "--format vissl has no moving average"),
    ],
)
def test_another_network_than_the_wanted_one_is_not_read_in_silence(
    tmp_path: Path, format: Format, content: dict[str, Any], teacher: bool, sentence: str
) -> None:
    tensors = dict(random_resnet().state_dict())
    torch.save(dict.fromkeys(content, tensors), tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", format, teacher=teacher)
    assert sentence in str(caught.value)
