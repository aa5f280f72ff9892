"""Settings that are left open follow from the images and from the encoder of --init."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from launch import called
from PIL import Image
from workers.calls import SMALL

import selfsup
from recipes.finetune_triplet import Config as Finetune
from recipes.pretrain_lejepa import Config as LeJEPA
from recipes.pretrain_simclr import Config as Pretrain
from selfsup.config import EncoderConfig, OptimConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.open import training_source
from selfsup.data.samplers import batch_shape
from selfsup.encoders.encoder import build, build_for, export, load
from selfsup.training.fill_in import fill_in
from selfsup.training.first_rate import first_rate, known_share
from selfsup.training.optim import peak_lr
from selfsup.training.pretrain import pretraining_sampler

pytestmark = pytest.mark.slow


def saved(tmp_path: Path, n: int, h: int, w: int, classes: int = 4) -> str:
    file = tmp_path / f"{n}-{h}-{w}-{classes}.npz"
    images = np.random.default_rng(0).integers(0, 256, (n, h, w, 3), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(n) % classes)
    return str(file)


def encoder_at(folder: Path, size: int, name: str = "test_resnet", **views: Any) -> str:
    torch.manual_seed(0)
    export(
        build(EncoderConfig(name=name), size), folder / "encoder", ViewsConfig(size=size, **views)
    )
    return str(folder)


@pytest.mark.parametrize(("h", "w", "size"), [(28, 28, 28), (48, 40, 40), (300, 200, 96)])
def test_views_have_the_side_of_the_images_up_to_96(
    tmp_path: Path, h: int, w: int, size: int
) -> None:
    config = fill_in(Pretrain(data=saved(tmp_path, 20, h, w), out="x", preset="standard"))
    assert (config.views.size, config.batch, config.encoder.name) == (size, 20, "resnet18")


def test_the_side_is_the_median_of_images_that_can_be_read(tmp_path: Path) -> None:
    for i, side in enumerate([20, 30, 30, 30, 500]):
        Image.new("RGB", (side, side + 7)).save(tmp_path / f"{i}.png")
    (tmp_path / "9.png").write_bytes(b"no image")
    assert fill_in(Pretrain(data=str(tmp_path), out="x")).views.size == 30


def test_given_settings_are_left_as_they_are(tmp_path: Path) -> None:
    given = Pretrain(
        data=saved(tmp_path, 20, 28, 28),
        out="x",
        preset="standard",
        epochs=3,
        batch=8,
        views=ViewsConfig(size=16),
        encoder=EncoderConfig(name="test_vit"),
    )
    assert fill_in(given) == given
    assert fill_in(fill_in(replace(given, batch=0))) == fill_in(replace(given, batch=0))


@pytest.mark.parametrize(
    ("sizes", "given", "shape"),
    [
        ([10] * 40, (0, 0), (16, 4)),
        ([100] * 6, (0, 0), (6, 10)),
        ([5] * 2, (0, 0), (2, 5)),
        ([1] * 30 + [7, 8], (0, 0), (2, 8)),
        ([10] * 40, (8, 0), (8, 8)),
        ([10] * 40, (0, 2), (16, 2)),
        ([10] * 40, (3, 3), (3, 3)),
    ],
)
def test_a_batch_has_64_images_of_16_classes_or_of_all(
    sizes: list[int], given: tuple[int, int], shape: tuple[int, int]
) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    assert batch_shape(labels, *given) == shape


def test_an_encoder_brings_its_name_size_and_normalisation(tmp_path: Path) -> None:
    data = saved(tmp_path, 20, 28, 28)
    init = encoder_at(tmp_path / "a", 24, mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2))
    config = fill_in(Finetune(data=data, out="x", init=init))
    views = config.views
    assert (config.encoder.name, views.size) == ("small_stem_resnet", 24)  # no config.yaml
    assert views.mean == (0.1, 0.2, 0.3)
    compiled = EncoderConfig(compile=True)
    assert fill_in(Finetune(data=data, out="x", init=init, encoder=compiled)).encoder.compile
    larger = fill_in(Finetune(data=data, out="x", init=init, views=ViewsConfig(size=32, views=1)))
    assert larger.views.size == 32


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--encoder.name", "resnet18"], "--encoder.name resnet18: the encoder of --init"),
        (["--encoder.args", "{depth: 3}"], "--encoder.args {depth: 3}: the encoder of --init"),
        (["--views.mean", "0.5", "0.5", "0.5"], "--views.mean (0.5, 0.5, 0.5): the encoder of"),
    ],
)
def test_what_contradicts_the_encoder_is_refused(
    tmp_path: Path, flags: list[str], sentence: str
) -> None:
    data, init = saved(tmp_path, 20, 28, 28), encoder_at(tmp_path / "a", 24)
    out = tmp_path / "run"
    done = called("tools/finetune.py", "--data", data, "--init", init, "--out", out, *flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(("given", "used"), [(64, 64), (0, 32), (24, 32)])
def test_a_transformer_takes_other_sizes_of_whole_patches(
    tmp_path: Path, given: int, used: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = timm.create_model("test_vit", num_classes=0, img_size=32)
    folder = tmp_path / "vit"
    preprocessing = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    timm.models.save_for_hf(model, str(folder), model_config={"pretrained_cfg": preprocessing})
    settings = SMALL | {"views": {"size": given}, "encoder": {}, "steps": 1}
    data = saved(tmp_path, 20, 28, 28)
    run = selfsup.finetune(data, out=tmp_path / "r", init=folder, **settings)
    assert load(run.folder)[1].size == used
    said = "views of 32 pixels, not 24: test_vit has patches of 16 pixels"
    assert (said in capsys.readouterr().err) == (given == 24)


def test_a_run_records_what_ran_and_goes_on(tmp_path: Path) -> None:
    data = saved(tmp_path, 24, 20, 20)
    settings = {"encoder": SMALL["encoder"], "steps": 2, "report": False}
    for _ in range(2):
        run = selfsup.pretrain(data, out=tmp_path / "a", **settings)
    assert run.settings["views"]["size"] == 20
    assert run.settings["batch"] == 24
    tuned = selfsup.finetune(data, out=tmp_path / "b", init=run, steps=2, report=False)
    assert tuned.settings["encoder"]["args"] == SMALL["encoder"]["args"]
    assert (tuned.settings["classes"], tuned.settings["images"]) == (4, 6)
    assert load(tuned.folder)[1].size == 20


def test_a_run_of_other_defaults_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    data = saved(tmp_path, 24, 20, 20)
    began: dict[str, Any] = {
        "encoder": SMALL["encoder"],
        "steps": 4,
        "report": False,
        "save_every": 2,
    }
    given: dict[str, Any] = {"views": {"size": 16}, "batch": 8, "method": "simclr"}
    run = selfsup.pretrain(data, out=tmp_path / "a", **began, **given)
    again = selfsup.pretrain(data, out=tmp_path / "a", **began)
    assert again.settings == run.settings
    sizes: dict[str, Any] = {
        "views": {"size": 16},
        "classes": 3,
        "images": 3,
        "optim": {"lr": 0.01},
    }
    run = selfsup.finetune(data, out=tmp_path / "b", **began, **sizes)
    again = selfsup.finetune(data, out=tmp_path / "b", **began)
    assert again.settings == run.settings
    with pytest.raises(UserError, match=r"views\.size 16 -> 12"):
        selfsup.finetune(data, out=tmp_path / "b", **began, views={"size": 12})


def test_views_of_no_run_take_nothing_from_the_folder_they_are_drawn_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(tmp_path, 24, 20, 20)
    given: dict[str, Any] = {"views": {"size": 16}, "batch": 8, "steps": 2, "report": False}
    run = selfsup.pretrain(data, out=tmp_path / "a", encoder=SMALL["encoder"], **given)
    monkeypatch.chdir(run.folder)
    assert fill_in(Pretrain(data=data, out="")).views.size == 20


def sheets(tmp_path: Path, noise: int) -> str:
    """Images of 8 classes: a pattern each, under noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (8, 16, 16, 3))
    images = patterns.repeat(10, 0) + rng.integers(-noise, noise + 1, (80, 16, 16, 3))
    file = tmp_path / f"noise{noise}.npz"
    labels = np.arange(8).repeat(10)
    np.savez(file, images=images.clip(0, 255).astype(np.uint8), labels=labels)
    return str(file)


def test_the_rate_falls_with_what_the_encoder_knows() -> None:
    rates = [first_rate(share) for share in (0.0, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)]
    assert rates[:2] == pytest.approx([6e-3, 6e-3])
    assert rates[-2:] == pytest.approx([1e-3, 1e-3])
    assert rates[3] == pytest.approx(6e-3 / 6**0.5)
    assert all(a >= b for a, b in pairwise(rates))


@pytest.mark.parametrize(
    ("name", "rates", "decay"),
    [
        ("test_resnet", (6e-3, 6e-3), 1.0),
        ("test_vit", (2e-4, 1e-3), 0.75),
        ("poolformer_s12", (2e-4, 1e-3), 1.0),  # timm knows no order of its layers
    ],
)
def test_networks_without_batch_norms_start_at_a_lower_rate_and_layer_decay(
    tmp_path: Path, name: str, rates: tuple[float, float], decay: float
) -> None:
    encoder, views = EncoderConfig(name=name, stem="standard"), ViewsConfig(size=32, views=1)
    export(build_for(encoder, views), tmp_path / "a", views)
    data = sheets(tmp_path, 255)
    config = Finetune(data=data, out="x", init=str(tmp_path / "a"), views=views)
    found = fill_in(config).optim
    assert found.lr == pytest.approx(rates[0])
    assert found.layer_decay == decay
    new = fill_in(replace(config, init="", encoder=encoder)).optim
    assert new.lr == pytest.approx(rates[1])
    assert new.layer_decay is None
    own = replace(config, optim=replace(config.optim, layer_decay=0.9, lr=0.01))
    assert fill_in(own).optim == own.optim


def test_known_classes_get_a_lower_rate_than_unknown_ones(tmp_path: Path) -> None:
    init = encoder_at(tmp_path / "a", 16)
    views = ViewsConfig(views=1, area=(1.0, 1.0), jitter=0.0, flip=0.0)
    rates = [
        fill_in(Finetune(data=sheets(tmp_path, noise), out="x", init=init, views=views)).optim.lr
        for noise in (5, 255)
    ]
    assert rates[0] < 2e-3
    assert rates[1] == pytest.approx(6e-3)
    alone = fill_in(Finetune(data=sheets(tmp_path, 5), out="x", views=views))
    assert alone.optim.lr == pytest.approx(6e-3)  # from random weights
    given = Finetune(
        data=sheets(tmp_path, 5), out="x", init=init, optim=OptimConfig(name="adamw", lr=0.02)
    )
    assert fill_in(given).optim.lr == 0.02


@pytest.mark.parametrize("batch", [(4, 4), (8, 8)])
def test_an_open_rate_has_one_peak_whatever_the_rule(
    tmp_path: Path, batch: tuple[int, int]
) -> None:
    classes, images = batch
    data, init = sheets(tmp_path, 5), encoder_at(tmp_path / "a", 16)
    for start, rate in (("", 6e-3), (init, 6e-3)):
        peaks = {}
        for rule in ("auto", "sqrt", "linear", "none"):
            optim = OptimConfig(name="adamw", lr=0.0, rule=rule)
            given = Finetune(
                data=data, out="x", init=start, classes=classes, images=images, optim=optim
            )
            peaks[rule] = peak_lr(fill_in(given).optim, classes * images)
        assert max(peaks.values()) == pytest.approx(min(peaks.values()))
        assert peaks["none"] <= rate * (classes * images / 256) ** 0.5 * 1.001


@pytest.mark.parametrize(("name", "rate"), [("test_resnet", 5e-3), ("test_vit", 2e-3)])
def test_the_rate_of_lejepa_follows_from_the_network(
    tmp_path: Path, name: str, rate: float
) -> None:
    encoder = EncoderConfig(name=name)
    config = LeJEPA(data=saved(tmp_path, 20, 32, 32), out="x", encoder=encoder)
    assert fill_in(config).optim == replace(config.optim, lr=rate)
    started = replace(
        config, encoder=EncoderConfig(), init=encoder_at(tmp_path / "a", 32, name=name)
    )
    assert fill_in(started).optim.lr == rate
    given = replace(config, optim=OptimConfig(name="adamw", lr=0.01))
    assert fill_in(given).optim.lr == 0.01
    with pytest.raises(UserError, match="sgd needs --optim"):
        fill_in(replace(config, optim=OptimConfig(name="sgd", lr=0.0)))


MISSING = "no-such-images"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--optim.name", "sgd"], "--optim.name sgd needs --optim.lr here"),
        (["--optim.name", "lars"], "--optim.name lars needs --optim.lr here"),
        (["--optim.name", "sgd", "--optim.lr", "0"], "--optim.name sgd needs --optim.lr here"),
        (["--optim.lr", "-1"], "--optim.lr must be above 0, not -1.0"),
        (["--optim.lr", "nan"], "--optim.lr must be above 0, not nan"),
        (["--optim.warmup", "5"], "--optim.warmup is a fraction of the run below 1, not 5"),
        (["--optim.layer-decay", "2"], "--optim.layer-decay must be above 0 and at most 1"),
        (["--optim.clip", "0"], "--optim.clip must be above 0"),
    ],
)
def test_wrong_rates_of_fine_tuning_are_told_before_anything_is_opened(
    tmp_path: Path, flags: list[str], sentence: str
) -> None:
    paths = ("--data", MISSING, "--init", MISSING, "--out", tmp_path / "run")
    for loss in ("triplet", "arcface", "contrastive"):
        done = called("tools/finetune.py", *paths, "--loss", loss, *flags)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert MISSING not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rate", ["0", "-0.1"])
def test_wrong_rates_of_pretraining_are_told_before_anything_is_opened(
    tmp_path: Path, rate: str
) -> None:
    flags = ("--data", MISSING, "--out", tmp_path / "run", "--optim.lr", rate)
    done = called("tools/pretrain.py", *flags)
    assert done.returncode == 2
    assert f"--optim.lr must be above 0, not {float(rate)}" in done.stderr


def test_measuring_leaves_batch_statistics_and_goes_on_with_the_first_rate(tmp_path: Path) -> None:
    init = encoder_at(tmp_path / "a", 16)
    data = sheets(tmp_path, 40)
    settings: dict[str, Any] = {"init": init, "steps": 2, "report": False}
    run = selfsup.finetune(data, out=tmp_path / "r", **settings)
    first = run.settings["optim"]["lr"]
    config = fill_in(Finetune(data=data, out="x", init=init))
    encoder = load(Path(init))[0]
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    known_share(encoder, training_source(config), config)
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())
    again = selfsup.finetune(data, out=tmp_path / "r", **settings)
    assert again.settings["optim"]["lr"] == first


@pytest.mark.parametrize("method", ["mae", "dinov2"])
def test_a_method_of_masked_patches_has_a_vit_where_none_is_named_and_goes_on_with_it(
    tmp_path: Path, method: str
) -> None:
    data, out = saved(tmp_path, 8, 16, 16), tmp_path / "run"
    flags = ("--data", data, "--out", out, "--batch", "4", "--steps", "1", "--method.dim", "8")
    done = called(f"recipes/pretrain_{method}.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "name: vit_tiny_patch16_224" in (out / "config.yaml").read_text()
    again = called(f"recipes/pretrain_{method}.py", *flags)
    assert again.returncode == 0, again.stderr
    assert "has done all its 1 steps" in again.stdout


def test_a_named_encoder_keeps_its_own_arguments(tmp_path: Path) -> None:
    vit = EncoderConfig(name="vit_tiny_patch16_224", args="{global_pool: avg}")
    config = Pretrain(data=saved(tmp_path, 20, 28, 28), out="x")
    for given in (
        EncoderConfig(name="test_vit"),
        EncoderConfig(name="test_vit", args="{depth: 1}"),
    ):
        assert fill_in(replace(config, encoder=given), encoder=vit).encoder == given
    assert fill_in(config, encoder=vit).encoder == vit
    layers = EncoderConfig(args="{depth: 1}")
    named = replace(layers, name=vit.name)
    assert fill_in(replace(config, encoder=layers), encoder=vit).encoder == named


def test_an_open_batch_has_no_more_images_than_a_mixture_can_give(tmp_path: Path) -> None:
    few, many = saved(tmp_path, 20, 24, 24), saved(tmp_path, 320, 24, 24)
    config = fill_in(Pretrain(data=f"{few} * 1 + {many} * 1", out="x"))
    assert config.batch == 36
    sampler = pretraining_sampler(training_source(config), config)
    for step in range(30):
        assert len(set(sampler(step).tolist())) == 36
    assert fill_in(Pretrain(data=f"{few} * 3 + {many} * 1", out="x")).batch == 24
    assert fill_in(Pretrain(data=f"{few} + {many}", out="x")).batch == 256


def test_an_open_batch_has_no_more_images_than_an_audit_leaves(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    file, audit = tmp_path / "twice.npz", tmp_path / "audit.json"
    np.savez(file, images=np.concatenate([images, images[:8]]))
    done = called("tools/audit.py", "--data", file, "--out", audit)
    assert done.returncode == 0, done.stderr
    config = Pretrain(data=str(file), out="x", audit=str(audit))
    assert fill_in(config).batch == 28
    assert fill_in(replace(config, mask_duplicates=True)).batch == 20


@pytest.mark.parametrize(("given", "used"), [(None, True), (False, False), (True, True)])
def test_squashing_follows_the_weights_unless_it_is_given(
    tmp_path: Path, given: bool | None, used: bool
) -> None:
    init = encoder_at(tmp_path / "a", 24, squash=True)
    views = ViewsConfig(views=1, squash=given)
    config = fill_in(Finetune(data=saved(tmp_path, 20, 28, 28), out="x", init=init, views=views))
    assert config.views.squash is used


@pytest.mark.parametrize("numbers", [{"classes": -3}, {"images": -3}])
def test_a_batch_of_fewer_than_no_images_is_refused(
    tmp_path: Path, numbers: dict[str, Any]
) -> None:
    ((name, value),) = numbers.items()
    with pytest.raises(UserError, match=f"--{name} must be 0 or more, not {value}"):
        fill_in(Finetune(data=saved(tmp_path, 20, 28, 28), out="x", **numbers))
