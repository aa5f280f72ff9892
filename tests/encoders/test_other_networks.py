"""Checkpoints that fit a network in part: what is used, what is not, and when that is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from weight_families import load_third_party

from selfsup.config import EncoderConfig, Format, InitConfig, KNNConfig
from selfsup.core.errors import UserError
from selfsup.encoders.fit_weights import Match
from selfsup.encoders.start import open_start
from selfsup.encoders.third_party import select_tensors
from selfsup.encoders.weights import read_file
from selfsup.evaluate.model import open_model

pytestmark = pytest.mark.slow

Named = dict[str, Tensor]


def random_model(name: str, **args: Any) -> Any:
    """A timm model whose tensors are all random, so that one that is not loaded shows."""
    torch.manual_seed(0)
    model = timm.create_model(name, **({"num_classes": 0} | args)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


def features(model: nn.Module, size: int) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(
            torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        )
    return out


def load(folder: Path, named: Any, format: Format, model: nn.Module, **options: Any) -> Match:
    file = folder / "x.pth"
    torch.save(named, file)
    return load_third_party(
        model, select_tensors(read_file(file), file, format, **options), file, format
    )


FAMILIES = [
    ("test_convnext", "head.norm"),
    ("test_convnext2", "head.norm"),
    ("test_convnext3", "head.norm"),
    ("test_vit", "norm"),
    ("test_vit2", "fc_norm"),
    ("caformer_s18", "head.norm"),
    ("davit_tiny", "head.norm"),
    ("hiera_tiny_224", "head.norm"),
    ("tiny_vit_5m_224", "head.norm"),
    ("swin_tiny_patch4_window7_224", "norm"),
    ("beit_base_patch16_224", "fc_norm"),
    ("nextvit_small", "norm"),
    ("edgenext_xx_small", "head.norm"),
    ("pvt_v2_b0", ""),
    ("levit_128s", ""),
]


@pytest.mark.parametrize(
    ("name", "norm"),
    [pytest.param(*f, marks=pytest.mark.slow if i > 3 else ()) for i, f in enumerate(FAMILIES)],
)
@pytest.mark.parametrize("classes", [0, 5])
def test_no_family_loses_its_last_norm(tmp_path: Path, name: str, norm: str, classes: int) -> None:
    theirs = random_model(name, num_classes=classes)
    assert not norm or f"{norm}.weight" in theirs.state_dict()
    ours = timm.create_model(name, num_classes=0).eval()
    named = {"state_dict": {f"backbone.{k}": v for k, v in theirs.state_dict().items()}}
    match = load(tmp_path, named, "solo", ours)
    assert (match.missing, match.unused) == ([], [])
    theirs.reset_classifier(0)
    size = int(theirs.pretrained_cfg["input_size"][-1])
    torch.testing.assert_close(features(ours, size), features(theirs, size), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["norm.", "norms.", "norm_head."])
def test_the_norm_after_pooling_is_found_under_its_original_name(tmp_path: Path, norm: str) -> None:
    theirs = random_model("test_convnext")
    named = {k.replace("head.norm.", norm): v for k, v in theirs.state_dict().items()}
    ours = timm.create_model("test_convnext", num_classes=0).eval()
    assert not load(tmp_path, named, "timm", ours).missing
    assert torch.equal(features(ours, 64), features(theirs, 64))


@pytest.mark.parametrize(
    ("deep", "shallow"),
    [
        (("resnet34", {}), ("resnet18", {})),
        (("test_vit", {"depth": 7}), ("test_vit", {"depth": 6})),
        (("test_convnext", {"depths": (1, 2, 9, 2)}), ("test_convnext", {})),
    ],
)
def test_a_deeper_networks_checkpoint_is_refused(
    tmp_path: Path, deep: tuple[str, Any], shallow: tuple[str, Any]
) -> None:
    theirs = timm.create_model(deep[0], num_classes=0, **deep[1])
    ours = timm.create_model(shallow[0], num_classes=0, **shallow[1])
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(
        UserError, match=r"another network: .* of its .* encoder tensors would stay"
    ):
        load(tmp_path, dict(theirs.state_dict()), "timm", ours)
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in before.items())


def test_a_wider_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    theirs = timm.create_model("vit_small_patch16_224", depth=1, num_classes=0)
    ours = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
    named = dict(theirs.state_dict()) | {"patch_embed.proj.bias": torch.zeros(192)}
    with pytest.raises(UserError, match=r"has shape \[.*\], the model's \[.*\]"):
        load(tmp_path, named, "timm", ours)


def test_unused_tensors_are_counted_and_named_and_heads_are_not(tmp_path: Path) -> None:
    theirs = dict(random_model("test_resnet").state_dict())
    more = {"extra.weight": torch.zeros(2), "extra.bias": torch.zeros(2)}
    heads = {
        "fc.weight": torch.zeros(3, 2),
        "projector.0.weight": torch.zeros(2),
        "queue": torch.zeros(2),
    }
    ours = timm.create_model("test_resnet", num_classes=0)
    match = load(tmp_path, theirs | more | heads, "timm", ours)
    assert match.unused == ["extra.weight", "extra.bias"]
    assert "2 of the file's unused: extra.weight, extra.bias" in str(match)


ONLY_TEACHER: dict[Format, Any] = {
    "dino": lambda named: {"teacher": {f"backbone.{k}": v for k, v in named.items()}},
    "timm": lambda named: {"epoch": 3, "state_dict_ema": named},
    "lightly": lambda named: {"state_dict": {f"teacher_backbone.{k}": v for k, v in named.items()}},
    "solo": lambda named: {"state_dict": {f"momentum_backbone.{k}": v for k, v in named.items()}},
    "moco": lambda named: {"state_dict": {f"module.encoder_k.{k}": v for k, v in named.items()}},
    "mmselfsup": lambda named: {"state_dict": {f"target_net.0.{k}": v for k, v in named.items()}},
}


@pytest.mark.parametrize("format", ONLY_TEACHER)
def test_a_file_with_only_a_moving_average_is_read_and_says_so(
    tmp_path: Path, format: Format
) -> None:
    theirs = random_model("test_resnet")
    ours = timm.create_model("test_resnet", num_classes=0).eval()
    match = load(tmp_path, ONLY_TEACHER[format](dict(theirs.state_dict())), format, ours)
    assert torch.equal(features(ours, 64), features(theirs, 64))
    assert "the moving average, the file's only network" in str(match)
    asked = load(
        tmp_path, ONLY_TEACHER[format](dict(theirs.state_dict())), format, ours, teacher=True
    )
    assert "moving average" not in str(asked)  # nothing to say: it was asked for


def vit(**args: Any) -> Any:
    return random_model("test_vit", **({"img_size": 64, "depth": 2} | args))


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("theirs_have", [False, True])
def test_a_position_of_the_class_token_moves_into_the_token_and_back(
    tmp_path: Path, theirs_have: bool, registers: int
) -> None:
    theirs = vit(no_embed_class=not theirs_have, reg_tokens=registers)
    ours = timm.create_model(
        "test_vit",
        img_size=64,
        depth=2,
        num_classes=0,
        no_embed_class=theirs_have,
        reg_tokens=registers,
    ).eval()
    assert not load(tmp_path, dict(theirs.state_dict()), "timm", ours).missing
    torch.testing.assert_close(features(ours, 64), features(theirs, 64))


def test_positions_of_another_grid_are_resampled_and_those_of_prefix_tokens_are_not(
    tmp_path: Path,
) -> None:
    theirs = vit(img_size=96, reg_tokens=2)
    with torch.no_grad():  # a slope along the width stays one at any size
        theirs.pos_embed[:, 3:] = torch.arange(6.0).repeat(6)[None, :, None]
    ours = timm.create_model("test_vit", img_size=48, depth=2, num_classes=0, reg_tokens=2)
    assert not load(tmp_path, dict(theirs.state_dict()), "timm", ours).missing
    got = ours.state_dict()["pos_embed"]
    assert torch.equal(got[:, :3], theirs.pos_embed[:, :3])
    grid = got[0, 3:, 0].view(3, 3)
    torch.testing.assert_close(grid, grid[:1].expand(3, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(grid[0], torch.tensor([0.5, 2.5, 4.5]), atol=0.3, rtol=0)


@pytest.mark.parametrize("counts", [(4, 0), (0, 4), (4, 2)])
def test_other_numbers_of_register_tokens_are_refused(
    tmp_path: Path, counts: tuple[int, int]
) -> None:
    theirs, ours = (vit(reg_tokens=n, no_embed_class=True) for n in counts)
    with pytest.raises(
        UserError, match=f"has {counts[0]} register tokens and the model {counts[1]}"
    ):
        load(tmp_path, dict(theirs.state_dict()), "timm", ours)


@pytest.mark.parametrize("grid", [(4, 2), (8, 3), (2, 5)])
def test_positions_of_an_oblong_image_are_refused(tmp_path: Path, grid: tuple[int, int]) -> None:
    theirs = vit(img_size=(16 * grid[0], 16 * grid[1]))
    with pytest.raises(UserError, match="image was not square"):
        load(tmp_path, dict(theirs.state_dict()), "timm", vit())


def test_tables_of_relative_positions_are_resampled(tmp_path: Path) -> None:
    theirs = random_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(1, 1), embed_dim=8
    )
    ours = timm.create_model(
        "swin_tiny_patch4_window7_224",
        depths=(1, 1),
        num_heads=(1, 1),
        embed_dim=8,
        img_size=256,
        window_size=8,
        num_classes=0,
    )
    assert not load(tmp_path, dict(theirs.state_dict()), "timm", ours).missing


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "x.pth")
    init = InitConfig(init=str(tmp_path / "x.pth"))
    with pytest.raises(UserError, match="80 of its 180 encoder tensors would stay unused"):
        open_start(init, EncoderConfig(name="resnet18"), size=96)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (("test_vit", {"depth": 3}), ""),
        (("test_resnet", {"layers": (1, 1, 1, 1)}), "{layers: [1, 1, 2, 1]}"),
        (("test_convnext", {"depths": (1, 2, 3, 2)}), ""),
    ],
)
def test_random_weights_in_a_part_of_a_network_are_said_above_the_table(
    tmp_path: Path, small: tuple[str, Any], large: str
) -> None:
    theirs = timm.create_model(small[0], num_classes=0, **small[1])
    torch.save(dict(theirs.state_dict()), tmp_path / "x.pth")
    model = open_model(
        KNNConfig(
            model=small[0], init=str(tmp_path / "x.pth"), format="timm", data="",
            encoder_args=large, size=160, partial=True,
        )
    )  # fmt: skip
    assert "have random weights, since" in model.warnings[0]
    assert re.match(r"\d+ tensors of ", model.warnings[0])
