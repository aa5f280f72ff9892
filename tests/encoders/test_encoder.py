"""The encoder: which stem it gets, and that the exported network is the trained one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import Encoder, build, export, load

TINY = EncoderConfig(name="resnet18", args="{channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}")
VIT = EncoderConfig(name="test_vit")
VIEWS = ViewsConfig(size=32, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def trained(config: EncoderConfig, size: int) -> Encoder:
    """An encoder whose weights and batch statistics differ from those of a new network."""
    torch.manual_seed(0)
    encoder = build(config, size)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(torch.randn_like(p) * 0.05)
        encoder.train()(images(size))
    return encoder.eval()


def features(model: nn.Module, size: int) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(images(size))
    return output


def run(script: str) -> str:
    """Run a script in a new interpreter and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def stem(encoder: Encoder) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kernel and stride of the first convolution."""
    first = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    return tuple(first.kernel_size), tuple(first.stride)


def test_a_resnet_for_small_images_has_a_small_stem_and_no_pooling() -> None:
    small, large = build(TINY, 32), build(TINY, 96)
    assert stem(small) == ((3, 3), (1, 1))
    assert stem(large) == ((7, 7), (2, 2))
    assert not any(isinstance(m, nn.MaxPool2d) for m in small.modules())
    assert any(isinstance(m, nn.MaxPool2d) for m in large.modules())


def test_the_default_stem_changes_above_64_pixels() -> None:
    assert stem(build(TINY, 64)) == ((3, 3), (1, 1))
    assert stem(build(TINY, 65)) == ((7, 7), (2, 2))


def test_the_stem_can_be_chosen() -> None:
    small = EncoderConfig(name=TINY.name, args=TINY.args, stem="small")
    standard = EncoderConfig(name=TINY.name, args=TINY.args, stem="standard")
    assert stem(build(small, 96)) == ((3, 3), (1, 1))
    assert stem(build(standard, 32)) == ((7, 7), (2, 2))


def test_a_vit_sees_eight_by_eight_patches_of_small_images() -> None:
    assert stem(build(VIT, 32)) == ((4, 4), (4, 4))
    assert stem(build(VIT, 64)) == ((8, 8), (8, 8))
    assert features(trained(VIT, 32), 32).shape == (2, build(VIT, 32).dim)


def test_a_convnext_for_small_images_has_smaller_patches() -> None:
    config = EncoderConfig(name="test_convnext")
    small, large = stem(build(config, 32))[0], stem(build(config, 96))[0]
    assert small < large


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_features_are_as_wide_as_the_encoder_says(name: str) -> None:
    encoder = build(EncoderConfig(name=name), 32).eval()
    assert features(encoder, 32).shape == (2, encoder.dim)


def test_the_memory_layout_does_not_change_features() -> None:
    last = trained(TINY, 32)
    first = trained(EncoderConfig(name=TINY.name, args=TINY.args, channels_last=False), 32)
    first.load_state_dict(last.state_dict())
    torch.testing.assert_close(features(first, 32), features(last, 32), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "size"), [(TINY, 32), (TINY, 96), (VIT, 32), (EncoderConfig(name="test_resnet"), 32)]
)
def test_an_exported_encoder_gives_the_same_features_through_timm(
    tmp_path: Path, config: EncoderConfig, size: int
) -> None:
    encoder = trained(config, size)
    before = features(encoder, size)
    export(encoder, tmp_path, VIEWS)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    plain = encoder.model.to(memory_format=torch.contiguous_format)
    assert torch.equal(features(again, size), features(plain, size))
    torch.testing.assert_close(features(again, size), before, atol=1e-4, rtol=1e-4)


def test_the_exported_configuration_holds_the_evaluation_view(tmp_path: Path) -> None:
    export(trained(TINY, 32), tmp_path, VIEWS)
    view = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert view["input_size"] == [3, 32, 32]
    assert view["interpolation"] == "bilinear"
    assert view["crop_pct"] == 1.0
    assert view["mean"] == [0.1, 0.2, 0.3]
    assert view["std"] == [0.4, 0.5, 0.6]
    export(trained(TINY, 96), tmp_path, ViewsConfig(size=96))
    view = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (view["input_size"], view["crop_pct"]) == ([3, 96, 96], 0.875)


def test_an_exported_encoder_is_loaded_with_its_view(tmp_path: Path) -> None:
    encoder = trained(TINY, 32)
    before = features(encoder, 32)
    export(encoder, tmp_path / "encoder", VIEWS)
    for folder in (tmp_path, tmp_path / "encoder"):  # a run folder, or the encoder's own
        again, views = load(folder)
        assert torch.equal(features(again.eval(), 32), before)
        assert views == VIEWS


@pytest.mark.parametrize(
    ("config", "first"),
    [(TINY, "import selfsup.encoders.encoder"), (VIT, "")],
    ids=["resnet", "vit"],
)
@pytest.mark.slow
def test_a_fresh_process_loads_what_was_exported(
    tmp_path: Path, config: EncoderConfig, first: str
) -> None:
    encoder = trained(config, 32)
    export(encoder, tmp_path, VIEWS)
    script = f"""
{first}
import timm, torch
torch.set_num_threads(1)
model = timm.create_model({f"local-dir:{tmp_path}"!r}, pretrained=True).eval()
x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    print(model(x).double().sum().item())
"""
    plain = encoder.model.to(memory_format=torch.contiguous_format)
    assert float(run(script)) == pytest.approx(float(features(plain, 32).double().sum()), rel=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_an_embedding_head_is_exported_with_the_encoder(tmp_path: Path, name: str) -> None:
    encoder = trained(TINY if name == "resnet18" else VIT, 32)
    encoder.model.reset_classifier(16)
    assert encoder.dim == 16
    export(encoder, tmp_path, VIEWS)
    again, _ = load(tmp_path)
    assert again.dim == 16
    assert torch.equal(features(again.eval(), 32), features(encoder.eval(), 32))


def test_an_unknown_model_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no model 'resnet18x' \(did you mean 'resnet18'\?\)"):
        build(EncoderConfig(name="resnet18x"), 32)


def test_a_small_stem_of_a_family_without_one_is_an_error() -> None:
    with pytest.raises(UserError, match="no small stem"):
        build(EncoderConfig(name="test_efficientnet", stem="small"), 32)
    assert stem(build(EncoderConfig(name="test_efficientnet"), 32))  # auto takes timm's own


@pytest.mark.parametrize("args", ["channels", "[1, 2]", "{a: [", "{wings: 2}"])
def test_arguments_that_timm_does_not_take_are_an_error(args: str) -> None:
    with pytest.raises(UserError, match=r"arguments must|cannot make"):
        build(EncoderConfig(name="resnet18", args=args), 32)


def test_the_error_for_a_folder_without_an_encoder_has_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no encoder/config\.json"):
        load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has not finished"):
        load(tmp_path)


def test_an_exported_folder_without_its_weights_is_a_users_error(tmp_path: Path) -> None:
    export(trained(TINY, 32), tmp_path, VIEWS)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("eva02_tiny_patch14_224", (112, 56)), ("test_vit", (96, 48)), ("test_resnet", (90, 45))],
)
def test_images_of_two_sizes_go_through_one_encoder(name: str, sizes: tuple[int, int]) -> None:
    encoder = build(EncoderConfig(name=name, stem="standard"), *sizes).eval()
    for size in sizes:
        assert encoder(torch.zeros(1, 3, size, size)).shape == (1, encoder.dim)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224"])
def test_a_model_of_one_size_takes_it_and_refuses_a_second_in_a_sentence(name: str) -> None:
    assert build(EncoderConfig(name=name), 224)(torch.zeros(1, 3, 224, 224)).shape[0] == 1
    if name.startswith("swin"):
        with pytest.raises(UserError, match=f"{name} does not take images of 96 pixels: "):
            build(EncoderConfig(name=name), 224, 96)
