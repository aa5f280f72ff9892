"""Presets fill in what is left open, by images and device; flags and begun runs go before them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from launch import SMALL, called

import selfsup
from recipes.finetune_triplet import Config as Finetune
from recipes.pretrain_simclr import Config as Pretrain
from selfsup.config import AdaptConfig, EncoderConfig, OptimConfig, ViewsConfig, presets
from selfsup.config.presets import Length, largest_side, preset_encoder
from selfsup.core.errors import UserError
from selfsup.training.fill_in import fill_in
from selfsup.training.pretrain import describe_settings
from tools.adapt import main as adapt

LENGTHS = [*presets.PRETRAIN.values(), *presets.FINETUNE.values(), *presets.ADAPT.values()]


def saved(tmp_path: Path, n: int, side: int, classes: int = 4) -> str:
    file = tmp_path / f"{n}-{side}-{classes}.npz"
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(n) % classes)
    return str(file)


@pytest.mark.parametrize("length", LENGTHS)
def test_epochs_are_between_the_bounds_and_the_usual_number_where_that_fits(
    length: Length,
) -> None:
    for per_epoch in (1, 3, 17, 195, 5000, 60_000, 10_000_000):
        epochs = length.epochs_of(per_epoch)
        steps = epochs * per_epoch
        assert epochs >= 1
        assert steps >= length.least
        assert steps <= length.most or epochs == 1 or steps - per_epoch < length.least
        if length.least <= length.epochs * per_epoch <= length.most:
            assert epochs == length.epochs


@pytest.mark.parametrize("kind", [presets.PRETRAIN, presets.FINETUNE, presets.ADAPT])
def test_a_thorough_run_is_longer_than_a_standard_one_and_that_than_a_quick_one(
    kind: dict[str, Length],
) -> None:
    for per_epoch in (1, 50, 5000):
        quick, standard, thorough = (kind[name].epochs_of(per_epoch) for name in kind)
        assert list(kind) == ["quick", "standard", "thorough"]
        assert quick < standard < thorough


def test_few_images_are_used_more_often_than_many(tmp_path: Path) -> None:
    base = Pretrain(data="", out="x", batch=4, preset="standard")
    few, many = (replace(base, data=saved(tmp_path, n, 8)) for n in (8, 64))
    assert (fill_in(few).epochs, fill_in(many).epochs) == (1000, 200)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("", ("quick", "test_resnet", "standard", 32, 50)),
        ("quick", ("quick", "test_resnet", "standard", 32, 50)),
        ("standard", ("standard", "resnet18", "auto", 48, 250)),
        ("thorough", ("thorough", "resnet18", "auto", 48, 1250)),
    ],
)
def test_a_preset_chooses_what_is_left_open(
    tmp_path: Path, preset: presets.Preset, expected: tuple[Any, ...]
) -> None:
    config = fill_in(Pretrain(data=saved(tmp_path, 32, 48), out="x", batch=4, preset=preset))
    found = config.preset, config.encoder.name, config.encoder.stem, config.views.size
    assert (*found, config.epochs) == expected
    assert fill_in(config) == config
    words = describe_settings(config)
    for name in (expected[0], f"{expected[4]:,} epochs", expected[1], f"{expected[3]} pixels"):
        assert name in words


GIVEN: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 7},
    "steps": {"steps": 11},
    "encoder": {"encoder": EncoderConfig(name="resnet18")},
    "stem": {"encoder": EncoderConfig(stem="small")},
    "size": {"views": ViewsConfig(size=40)},
    "batch": {"batch": 6},
    "seed": {"seed": 3, "workers": 0, "micro_batch": 4},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("preset", ["quick", "standard", "thorough"])
def test_what_is_given_goes_before_any_preset(
    tmp_path: Path, preset: presets.Preset, given: dict[str, Any]
) -> None:
    base = Pretrain(data=saved(tmp_path, 32, 48), out="x", preset=preset)
    config = fill_in(replace(base, **given))
    for name, value in given.items():
        if name == "encoder":
            assert not value.name or config.encoder.name == value.name
            assert config.encoder.stem == value.stem
        elif name == "views":
            assert config.views.size == value.size
        else:
            assert getattr(config, name) == value
    assert config.epochs is None or config.steps is None


def test_a_cpu_is_quick_only_where_no_network_is_given(tmp_path: Path) -> None:
    base = Pretrain(data=saved(tmp_path, 32, 48), out="x", batch=4)
    assert fill_in(base).preset == "quick"
    shorter = fill_in(replace(base, steps=7))  # must not be a larger network than without a word
    assert (shorter.preset, shorter.encoder.name) == ("quick", "test_resnet")
    named = replace(base, encoder=EncoderConfig(name="resnet18"))
    assert fill_in(named).preset == "standard"
    data = saved(tmp_path, 64, 8, classes=4)
    assert fill_in(Finetune(data=data, out="x", optim=OptimConfig(lr=0.1))).preset == "standard"


def test_a_gpu_has_larger_encoders_and_views_than_a_cpu() -> None:
    for preset in ("quick", "thorough"):
        assert largest_side(preset, "cuda") > largest_side(preset, "cpu")
        assert preset_encoder(preset, "cuda") != preset_encoder(preset, "cpu")
    assert largest_side("standard", "cuda") == largest_side("standard", "cpu") == 96
    assert preset_encoder("standard", "cuda") == preset_encoder("standard", "cpu")


def test_a_method_of_patches_keeps_its_vision_transformer(tmp_path: Path) -> None:
    vit = EncoderConfig(name="vit_tiny_patch16_224")
    base = Pretrain(data=saved(tmp_path, 8, 48), out="x", batch=4, preset="quick")
    config = fill_in(base, encoder=vit)
    assert (config.encoder.name, config.encoder.stem) == (vit.name, "auto")
    assert (config.views.size, config.epochs) == (32, 150)


def test_fine_tuning_and_adapting_have_lengths_of_their_own(tmp_path: Path) -> None:
    data = saved(tmp_path, 640, 8, classes=40)
    config = fill_in(Finetune(data=data, out="x", views=ViewsConfig(size=8, views=1)))
    per_epoch = 10
    assert (config.epochs, config.preset) == (50, "standard")
    assert presets.FINETUNE["quick"].epochs_of(per_epoch) == 10
    assert AdaptConfig.LENGTHS["standard"].epochs_of(per_epoch) == 20


FLAGS = ("--encoder.args", SMALL, "--views.size", "8", "--batch", "4", "--workers", "0")
RUN = (*FLAGS, "--method.hidden", "8", "--method.dim", "4", "--no-report")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 2 epochs, whose number followed from a preset."""
    short = {name: Length(epochs=i, least=2, most=8) for i, name in enumerate(presets.PRETRAIN, 2)}
    monkeypatch.setattr(Pretrain, "LENGTHS", short)
    out = tmp_path / "run"
    done = called("recipes/pretrain_simclr.py", *command(tmp_path, out), "--preset", "quick")
    assert done.returncode == 0, done.stderr
    return out


def command(tmp_path: Path, out: Path) -> tuple[str | Path, ...]:
    return ("--data", saved(tmp_path, 8, 8), "--out", out, *RUN)


@pytest.mark.slow
def test_a_run_goes_on_with_the_preset_and_the_epochs_that_were_chosen(
    tmp_path: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yaml.safe_load((begun / "config.yaml").read_text())
    assert (settings["preset"], settings["epochs"], settings["steps"]) == ("quick", 2, None)
    assert settings["encoder"]["stem"] == "standard"
    other = {name: Length(epochs=9, least=2, most=99) for name in presets.PRETRAIN}
    monkeypatch.setattr(Pretrain, "LENGTHS", other)  # as if a newer version had other defaults
    for more in ((), ("--preset", "quick"), ("--epochs", "2")):
        done = called("recipes/pretrain_simclr.py", *command(tmp_path, begun), *more)
        assert done.returncode == 0, done.stderr
        assert "has done all its 4 steps" in done.stdout
    assert yaml.safe_load((begun / "config.yaml").read_text()) == settings


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--preset", "thorough"), ("--epochs", "3")])
def test_a_run_does_not_go_on_with_another_preset_or_length(
    tmp_path: Path, begun: Path, more: tuple[str, str]
) -> None:
    done = called("recipes/pretrain_simclr.py", *command(tmp_path, begun), *more)
    assert done.returncode == 2
    assert "was started with other settings" in done.stderr
    assert more[0].removeprefix("--") in done.stderr


@pytest.mark.slow
def test_a_run_of_a_version_without_presets_goes_on_with_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    flags = command(tmp_path, out)

    def of_before(config: Pretrain) -> Pretrain:
        return replace(fill_in(config), preset="")

    with monkeypatch.context() as patch:
        patch.setattr("selfsup.training.fill_in.fill_in", of_before)
        assert called("recipes/pretrain_simclr.py", *flags, "--epochs", "2").returncode == 0
    lines = (out / "config.yaml").read_text().splitlines(keepends=True)
    (out / "config.yaml").write_text("".join(x for x in lines if not x.startswith("preset")))
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "has done all its 4 steps" in done.stdout
    assert "preset     as begun: 2 epochs" in done.stdout
    for preset in ("quick", "standard"):
        refused = called("recipes/pretrain_simclr.py", *flags, "--preset", preset)
        assert refused.returncode == 2
        assert f"preset '' -> '{preset}'" in refused.stderr


@pytest.mark.slow
def test_calls_take_a_preset_as_commands_do(tmp_path: Path) -> None:
    small: dict[str, Any] = {"views": {"size": 8}, "steps": 1, "report": False, "workers": 0}
    run = selfsup.pretrain(
        saved(tmp_path, 8, 8), out=tmp_path / "a", batch=4, preset="quick", **small
    )
    assert run.settings["preset"] == "quick"
    assert run.settings["encoder"]["name"] == "test_resnet"
    with pytest.raises(UserError, match="preset must be one of quick, standard, thorough"):
        selfsup.finetune(saved(tmp_path, 8, 8), out=tmp_path / "b", preset="fast", **small)
    with pytest.raises(UserError, match="--init names the weights to adapt"):
        adapt(AdaptConfig(data="x", out="y", preset="quick"))
