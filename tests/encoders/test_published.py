"""Published models: their own preprocessing, their features and not their classes, their cache."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

import selfsup
from selfsup.config import EncoderConfig, KNNConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.encoder import build, export, load
from selfsup.encoders.evaluation_view import crop_of, evaluation_view
from selfsup.evaluate.model import open_model

pytestmark = pytest.mark.slow


def published(folder: Path, name: str = "test_resnet", classes: int = 7, **settings: Any) -> Any:
    """A folder as timm writes it for the hub."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes).eval()
    timm.models.save_for_hf(
        model, str(folder), model_config={"pretrained_cfg": settings}, safe_serialization=True,
        data_config=settings,
    )  # fmt: skip
    return model


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_timm_folder_with_a_classifier_gives_the_features_before_it(
    tmp_path: Path, name: str
) -> None:
    model = published(tmp_path, name, classes=1000)
    encoder, _ = load(tmp_path)
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(encoder.eval()(x), expected, atol=1e-4, rtol=1e-4)
    assert encoder.dim == expected.shape[1]
    blank, _ = load(tmp_path, blank=True)
    assert blank.dim == encoder.dim
    assert selfsup.load(tmp_path).encoder.dim == encoder.dim


@pytest.mark.parametrize("place", ["encoder", "elsewhere", "old run"])
def test_the_head_of_an_embedding_stays_wherever_its_folder_lies(
    tmp_path: Path, place: str
) -> None:
    encoder = build(EncoderConfig(name="test_resnet"), 96)
    encoder.set_head(9)
    folder = tmp_path / ("elsewhere" if place == "elsewhere" else "encoder")
    export(encoder, folder, ViewsConfig(size=96))
    if place == "old run":  # exports had no mark
        config = json.loads((folder / "config.json").read_text())
        del config["selfsup"]
        (folder / "config.json").write_text(json.dumps(config))
        (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert load(folder)[0].dim == 9
    assert load(tmp_path if folder.name == "encoder" else folder)[0].dim == 9


@pytest.mark.parametrize("crop", [1.0, 0.95, 0.6])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_images_are_prepared_as_the_published_model_says(
    tmp_path: Path, crop: float, interpolation: str, mode: str
) -> None:
    settings: dict[str, Any] = {
        "input_size": (3, 96, 96), "crop_pct": crop, "crop_mode": mode,
        "interpolation": interpolation, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4),
    }  # fmt: skip
    published(tmp_path / "m", **settings)
    embedder = load_bundle(tmp_path / "m")
    assert (embedder.views.size, embedder.views.mean) == (96, (0.5, 0.4, 0.3))
    small = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((290, 190), Image.Resampling.BICUBIC)
    image.save(tmp_path / "x.png")
    transform: Any = create_transform(**settings)
    with torch.no_grad():
        theirs = embedder.encoder(transform(image)[None])[0]
    ours = embedder.embed([tmp_path / "x.png"])[0]
    same = torch.nn.functional.cosine_similarity(ours, theirs, dim=0)
    assert float(same) > 0.999
    assert embedder.views.interpolation == interpolation
    other = load_bundle(tmp_path / "m")
    other.views = ViewsConfig(size=96, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    if (crop, mode) == (0.6, "center"):  # the usual crop would not have done
        wrong = other.embed([tmp_path / "x.png"])[0]
        assert float(torch.nn.functional.cosine_similarity(wrong, theirs, dim=0)) < float(same)


def test_an_export_and_its_bundle_keep_the_crop(tmp_path: Path) -> None:
    published(tmp_path / "m", crop_pct=0.7, input_size=(3, 96, 96))
    encoder, views = load(tmp_path / "m")
    assert (crop_of(views), bool(views.squash)) == (0.7, False)
    export(encoder, tmp_path / "again", views)
    assert load(tmp_path / "again")[1] == views


@pytest.mark.parametrize(
    ("size", "own", "crop", "expected"),
    [(224, 224, 0.95, 0.95), (192, 224, 0.95, 0.95), (32, 224, 0.95, 1.0), (32, 32, 0.9, 0.9)],
)
def test_small_images_of_another_size_keep_their_border(
    size: int, own: int, crop: float, expected: float
) -> None:
    settings = {"mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": crop, "input_size": (3, own, own)}
    assert crop_of(evaluation_view(settings, size)) == expected


@pytest.mark.parametrize(
    "name", ["test_resnet.r160_in1k", "resnet18.a1_in1k", "vit_tiny_patch16_224.augreg_in21k"]
)
def test_a_name_of_published_weights_is_never_random_weights(name: str) -> None:
    base = name.split(".")[0]
    with pytest.raises(UserError, match=f"timm:{name} reads them .* {base} has random ones"):
        build(EncoderConfig(name=name), 96)
    with pytest.raises(UserError, match=f"--model timm:{name} reads them"):
        open_model(KNNConfig(model=name, data="x"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connection that somebody tries."""
    tried: list[Any] = []

    def connect(*args: Any, **_: Any) -> None:
        tried.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    return tried


def hub_cache(folder: Path, repository: str) -> Path:
    """The folder of a repository's files in a hub's cache."""
    commit = "0" * 40
    root = folder / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    return root / "snapshots" / commit


def test_cached_weights_are_sought_in_the_cache_alone(
    tmp_path: Path, offline: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    for name in ("test_resnet", "test_resnet.r160_in1k", "resnet18.a1_in1k", "resnet18.tv_in1k"):
        with pytest.raises(UserError, match=f"the weights of {name} are not on this machine and"):
            open_model(KNNConfig(model=f"timm:{name}", data="x"))
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert time.monotonic() - began < 60  # the hub's client alone tries for 48 s each time


def test_cached_weights_are_loaded_with_their_preprocessing(
    tmp_path: Path, offline: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    theirs: Any = timm.create_model("test_resnet").eval()
    files = hub_cache(tmp_path, "timm/test_resnet.r160_in1k")
    safetensors.torch.save_file(dict(theirs.state_dict()), files / "model.safetensors")
    model = open_model(KNNConfig(model="timm:test_resnet.r160_in1k", data="x"))
    assert offline == []
    theirs.reset_classifier(0)
    x = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(model.encoder.eval()(x), theirs(x), atol=1e-4, rtol=1e-4)
    settings: Any = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    assert model.views.size == settings.input_size[-1]
    assert crop_of(model.views) == settings.crop_pct
    assert model.untrained is not None
    assert model.untrained().dim == theirs.num_features


@pytest.mark.parametrize("size", [0, 7, 1000, 0.5])
def test_a_cut_weights_file_is_one_sentence(tmp_path: Path, size: float) -> None:
    published(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: size if isinstance(size, int) else int(len(whole) * size)])
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "{", '{"pretrained_cfg": 3}', '{"model_type": "vit"}']
)
def test_another_config_is_one_sentence(tmp_path: Path, content: str) -> None:
    published(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path)


def test_the_usual_crop_stays_open_for_other_sizes() -> None:
    settings = {"mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 0.875}
    assert evaluation_view(settings, 224).crop == 0
    assert evaluation_view(settings | {"crop_pct": 0.9}, 224).crop == 0.9
