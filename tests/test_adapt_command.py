"""`selfsup adapt` from published weights to a verdict, and its wrong turns."""

import json
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
def test_what_leads_is_exported_and_the_figures_are_kept(config: AdaptConfig) -> None:
    found = adapt(replace(config, remember=str(Path(config.data).with_name("general.npz"))))
    out = Path(config.out)
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
    table = lines[next(i for i, x in enumerate(lines) if "to train on, " in x and "images" in x) :]
    assert any(line.startswith("verdict: keep the published weights") for line in table)
    assert lines[-1].startswith("encoder in ")


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
