"""`selfsup adapt` from published weights to a verdict, and its wrong turns."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import SMALL

import selfsup
from selfsup.config import AdaptConfig, EncoderConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import build_for, export
from tools.adapt import adapt

VIEWS = ViewsConfig(size=16)


def stripes(classes: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of stripes whose direction and width are their class."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    images = []
    for label in range(classes):
        angle = np.pi * label / classes
        for _ in range(each):
            wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * 1.2 + draw.uniform(0, 6))
            noisy = 128 + 60 * wave[..., None] + draw.normal(0, 20, (16, 16, 3))
            images.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(images), np.arange(classes).repeat(each)


@pytest.fixture
def config(tmp_path: Path) -> AdaptConfig:
    images, labels = stripes(6, 12)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    np.savez(tmp_path / "general.npz", images=255 - images, labels=labels)
    torch.manual_seed(0)
    encoder = EncoderConfig(name="resnet18", args=SMALL, stem="standard")
    export(build_for(encoder, VIEWS), tmp_path / "published", VIEWS)
    return AdaptConfig(
        data=str(tmp_path / "mine.npz"),
        init=str(tmp_path / "published"),
        out=str(tmp_path / "out"),
        classes=6,
        images=4,
        steps=6,
        workers=0,
        log_every=6,
        resamples=50,
        report=False,
    )


@pytest.mark.slow
def test_what_leads_is_exported_and_the_figures_are_kept_by_the_call_from_python(
    config: AdaptConfig,
) -> None:
    images, labels = stripes(6, 12)
    names = ("classes", "images", "steps", "workers", "log_every", "resamples", "report")
    out = Path(config.out)
    found = selfsup.adapt(
        list(images),
        labels=labels.tolist(),
        init=Path(config.init),
        out=out,
        remember=Path(config.data).with_name("general.npz"),
        **{name: getattr(config, name) for name in names},
    )
    assert isinstance(found, selfsup.Adaptation)
    record = json.loads((out / "adapt.json").read_text())
    assert record["verdict"] == found.verdict()
    assert list(found.own.figures) == ["published", "fine-tuned", "adapted: the mix"]
    assert found.remembered is not None
    chosen = selfsup.load(out).state_dict()
    published = selfsup.load(config.init).state_dict()
    same = all(torch.equal(chosen[name], tensor) for name, tensor in published.items())
    assert same is (not found.helped or record["mix"] == 0)


@pytest.mark.slow
def test_no_proven_lead_exports_the_published_weights(
    config: AdaptConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    still = replace(config, optim=replace(config.optim, lr=1e-12), test=config.data)
    found = adapt(still)
    assert not found.helped
    chosen = selfsup.load(config.out).state_dict()
    for name, tensor in selfsup.load(config.init).state_dict().items():
        assert torch.equal(chosen[name], tensor)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("verdict: keep the published weights") for line in lines)
    assert lines[-3].startswith("encoder in ")


@pytest.mark.slow
def test_the_same_command_again_has_the_same_verdict_also_without_the_start(
    config: AdaptConfig,
) -> None:
    first = adapt(config)
    published = selfsup.load(config.init).state_dict()
    with pytest.raises(UserError, match="other settings"):
        adapt(replace(config, classes=3))
    shutil.rmtree(config.init)
    again = adapt(config)
    assert again.own == first.own
    kept = selfsup.load(Path(config.out) / "published").state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in published.items())


@pytest.mark.slow
def test_one_that_was_stopped_goes_on_to_the_verdict_of_an_unbroken_one(
    config: AdaptConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = adapt(replace(config, save_every=2))
    stopped = replace(config, out=config.out + "2", save_every=2)

    def stop(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("selfsup.evaluate.blend.blend", stop)
        with pytest.raises(KeyboardInterrupt):
            adapt(stopped)
    run = Path(stopped.out) / "run"
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    shutil.rmtree(run / "encoder")
    assert adapt(stopped).own.lead == whole.own.lead


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"init": ""}, "--init names the weights to adapt"),
        ({"data": "nothing.npz"}, "nothing.npz does not exist"),
        ({"test": "nothing.npz"}, "nothing.npz does not exist"),
        ({"remember": "nothing.npz"}, "nothing.npz does not exist"),
        ({"init": "runs/nothing"}, "runs/nothing"),
    ],
)
def test_a_wrong_turn_is_one_sentence(
    config: AdaptConfig, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        adapt(replace(config, **change))


def test_images_without_labels_or_repeats_cannot_judge(config: AdaptConfig, tmp_path: Path) -> None:
    images, labels = stripes(6, 1)
    np.savez(tmp_path / "bare.npz", images=images)
    np.savez(tmp_path / "single.npz", images=images, labels=labels)
    with pytest.raises(UserError, match=r"bare.npz has no labels"):
        adapt(replace(config, test=str(tmp_path / "bare.npz")))
    with pytest.raises(UserError, match=r"each of the 6 classes of .*single.npz has one image"):
        adapt(replace(config, remember=str(tmp_path / "single.npz")))
    with pytest.raises(UserError, match=r"too few to keep some apart"):
        adapt(replace(config, data=str(tmp_path / "single.npz")))


def test_an_existing_run_is_not_written_over(config: AdaptConfig, tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="exists and is no adaptation"):
        adapt(replace(config, out=str(run)))
    with pytest.raises(UserError, match="exists and is no adaptation"):
        adapt(replace(config, out=config.init))
    assert [p.name for p in run.iterdir()] == ["config.yaml"]


def test_a_head_that_the_published_weights_lack_is_refused_before_training(
    config: AdaptConfig,
) -> None:
    with pytest.raises(UserError, match=r"--method\.dim 8"):
        adapt(replace(config, method=replace(config.method, dim=8)))
    assert not Path(config.out).exists()


@pytest.mark.slow
def test_weights_of_one_channel_are_adapted_to_grey_images(
    config: AdaptConfig, tmp_path: Path
) -> None:
    images, labels = stripes(6, 12)
    np.savez(tmp_path / "grey.npz", images=images[..., :1], labels=labels)
    grey = replace(VIEWS, mean=(0.5,), std=(0.5,))
    encoder = EncoderConfig(name="resnet18", args=SMALL, stem="standard")
    export(build_for(encoder, grey), tmp_path / "one", grey)
    views = replace(config.views, hue=0.0, saturation=0.0, grey=0.0)
    found = adapt(
        replace(config, data=str(tmp_path / "grey.npz"), init=str(tmp_path / "one"), views=views)
    )
    assert found.own.figures
