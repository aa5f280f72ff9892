"""Weights of any origin: found, fitted, with their own size and normalisation, or refused."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from weight_families import FAMILIES, by_timm, write

import selfsup
from selfsup.config import EncoderConfig, InitConfig, KNNConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import build, export, load
from selfsup.encoders.start import Start, open_start
from selfsup.evaluate.model import open_model

pytestmark = pytest.mark.slow


def start(file: Path | str, size: int = 0, **settings: Any) -> Start:
    encoder = EncoderConfig(**{k: v for k, v in settings.items() if hasattr(EncoderConfig, k)})
    init = {k: v for k, v in settings.items() if not hasattr(EncoderConfig, k)}
    return open_start(InitConfig(init=str(file), **init), encoder, size=size)


def features(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(x)
    return out


def images(folder: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(12) % 3)
    return str(folder / "images.npz")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_loads_with_its_own_size_and_normalisation_and_timms_features(
    tmp_path: Path, name: str
) -> None:
    family = FAMILIES[name]
    file = write(family, tmp_path / "x.pth")
    average = name == "DINO"
    found = start(
        file, family.size, name=family.name, args=family.args, pooling="native",
        moving_average=average,
    )  # fmt: skip
    settings: Any = timm.get_pretrained_cfg(family.name)
    assert found.match is not None
    assert not found.match.missing
    assert found.views.size == (family.size or settings.input_size[-1])
    assert (found.views.mean, found.views.std) == (settings.mean, settings.std)
    x = torch.randn(2, 3, found.views.size, found.views.size)
    theirs = by_timm(family, file, found.views.size)
    torch.testing.assert_close(
        features(found.encoder, x), features(theirs, x), atol=1e-5, rtol=1e-5
    )


@pytest.mark.grid
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_starts_both_kinds_of_training_and_its_export_loads_again(
    tmp_path: Path, name: str
) -> None:
    family = FAMILIES[name]
    settings: Any = {
        "init": str(write(family, tmp_path / "x.pth")),
        "encoder": {"name": family.name, "args": family.args},
        "views": {"size": 224 if name == "Swin" else 112},
        "steps": 1,
        "report": False,
    }
    data = images(tmp_path)
    run = selfsup.pretrain(data, out=tmp_path / "a", batch=4, **settings)
    tuned = selfsup.finetune(data, out=tmp_path / "b", classes=2, images=2, **settings)
    x = torch.randn(2, 3, settings["views"]["size"], settings["views"]["size"])
    for folder in (run.folder, tuned.folder):
        encoder, views = load(folder)
        assert views.mean == timm.get_pretrained_cfg(family.name).mean  # type: ignore[union-attr]
        assert features(encoder, x).isfinite().all()
    again = selfsup.finetune(
        data, out=tmp_path / "c", init=run, steps=1, report=False, classes=2, images=2
    )
    assert again.settings["encoder"]["name"] == family.name.partition(".")[0]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ResNet", "resnet18"),
        ("EfficientNet-Lite", "tf_efficientnet_lite0"),
        ("MobileNetV2", "mobilenetv2_100"),
    ],
)
def test_a_files_network_is_found_by_its_tensors(tmp_path: Path, name: str, found: str) -> None:
    assert start(write(FAMILIES[name], tmp_path / "x.pth"), 64).config.name == found


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"]
)
def test_a_whole_transformer_is_found_by_its_tensors(tmp_path: Path, name: str) -> None:
    model = timm.create_model(name, num_classes=0)
    safetensors.torch.save_file(dict(model.state_dict()), tmp_path / "x.safetensors")
    found = start(tmp_path / "x.safetensors", 98)
    assert found.config.name == name
    assert found.views.size == (112 if "patch16" in name else 98)


def test_a_network_that_tensors_do_not_tell_is_asked_for(tmp_path: Path) -> None:
    file = write(FAMILIES["CLIP"], tmp_path / "x.pth")
    with pytest.raises(UserError, match="do not say which network they are of: give its timm"):
        start(file)


def test_the_teacher_of_a_file_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    family = FAMILIES["DINO"]
    file = write(family, tmp_path / "x.pth")
    settings = {"name": family.name, "args": family.args}
    student = start(file, 64, **settings).encoder.state_dict()
    teacher = start(file, 64, moving_average=True, **settings).encoder.state_dict()
    assert torch.equal(student["model.norm.bias"], teacher["model.norm.bias"] + 1)
    with pytest.raises(UserError, match="has no moving average in it"):
        start(write(FAMILIES["ViT"], tmp_path / "y.pth"), moving_average=True)


def test_two_readings_of_a_file_that_differ_are_asked_about(tmp_path: Path) -> None:
    small = build(EncoderConfig(name="resnet18", stem="small"), 32).model
    named = {f"backbone.{key}": value for key, value in small.state_dict().items()}
    torch.save({"state_dict": named}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"can be read as .* and as .*give --format"):
        start(tmp_path / "x.pth", 32)
    assert start(tmp_path / "x.pth", 32, format="solo").encoder.model.conv1.padding == (2, 2)


@pytest.mark.parametrize("name", ["EfficientNet-Lite", "MobileNetV2"])
@pytest.mark.parametrize("network", ["resnet18", "test_vit"])
def test_a_file_of_another_kind_of_network_is_one_sentence(
    tmp_path: Path, name: str, network: str
) -> None:
    with pytest.raises(
        UserError, match=r"no tensor of .* fits the model|is of another network|has only"
    ):
        start(write(FAMILIES[name], tmp_path / "x.pth"), 64, name=network)


def test_less_than_nine_tenths_is_refused_unless_told(tmp_path: Path) -> None:
    named = timm.create_model("resnet18", num_classes=0).state_dict()
    torch.save({k: v for k, v in named.items() if "layer4" not in k}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="has only 75 of 100 tensors"):
        start(tmp_path / "x.pth", name="resnet18")
    assert start(tmp_path / "x.pth", name="resnet18", partial=True).match is not None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("resnet18", r"timm:resnet18 are the published weights"),
        ("runs/none", r"--init runs/none does not exist"),
        ("timm:resnet81", r"timm has no model 'resnet81' \(did you mean"),
        (
            "timm:resnet18.no_tag",
            r"timm has no weights 'resnet18.no_tag', but of resnet18: a1",
        ),
    ],
)
def test_what_names_no_weights_is_answered(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        start(text)


def test_patches_of_another_size_are_resampled_where_asked(tmp_path: Path) -> None:
    family = FAMILIES["ViT"]
    file = write(family, tmp_path / "x.pth")
    args = family.args.replace("}", ", patch_size: 8}")
    found = start(file, 96, name=family.name, args=args)
    assert found.encoder.model.patch_embed.proj.weight.shape[-1] == 8
    with pytest.raises(UserError, match=r"patch_embed.proj.weight has shape \[32, 3, 16, 16\]"):
        start(file, 96, name="vit_small_patch8_224", args=family.args)


@pytest.mark.parametrize(
    ("pooling", "width"), [("native", 32), ("cls", 32), ("mean", 32), ("cls+mean", 64)]
)
def test_pooling_makes_its_features_of_the_same_tokens(
    tmp_path: Path, pooling: Any, width: int
) -> None:
    family = FAMILIES["DINOv2"]
    file = write(family, tmp_path / "x.pth")
    found = start(file, 56, name=family.name, args=family.args, pooling=pooling)
    x = torch.randn(2, 3, 56, 56)
    tokens = found.encoder.model.eval().forward_features(x)
    cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
    wanted = {"mean": mean, "cls+mean": torch.cat([cls, mean], 1)}.get(pooling, cls)
    assert found.encoder.dim == width
    torch.testing.assert_close(features(found.encoder, x), wanted)
    found.encoder.set_head(5)
    export(found.encoder, tmp_path / "encoder", found.views)
    again, _ = load(tmp_path / "encoder")
    torch.testing.assert_close(features(again, x), features(found.encoder, x))


def test_the_authors_pooling_is_the_default(tmp_path: Path) -> None:
    family = FAMILIES["DINOv3"]
    file = write(family, tmp_path / "x.pth")
    authors, cls, native = (
        features(
            start(file, 64, name=family.name, args=family.args, pooling=pooling).encoder,
            torch.ones(1, 3, 64, 64),
        )
        for pooling in ("", "cls", "native")
    )
    assert torch.equal(authors, cls)
    assert not torch.allclose(authors, native)


@pytest.mark.parametrize(
    ("name", "pooling", "sentence"),
    [
        ("resnet18", "cls", "resnet18 has no class token"),
        ("vit_base_patch16_siglip_224", "cls+mean", "has no class token"),
        ("deit_tiny_distilled_patch16_224", "mean", "cannot have --encoder.pooling mean"),
    ],
)
def test_pooling_that_a_network_cannot_have_is_refused(
    name: str, pooling: Any, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        build(EncoderConfig(name=name, pooling=pooling), 224)


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one repository, as huggingface_hub asks for its files."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, with_content: bool) -> None:
        self.asked.append(self.path)
        file = self.folder / self.path.rsplit("/", 1)[-1]
        found = file.is_file()
        content = file.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A server that stands for the hub, with an empty cache on this side."""
    handler = type("HubOfTest", (Hub,), {"folder": tmp_path / "hub", "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_published_weights_are_downloaded_once_and_then_read_from_the_cache(
    tmp_path: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("test_vit", num_classes=7).eval()
    settings = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    model.set_input_size((64, 64))
    timm.models.save_for_hf(
        model, str(hub.folder), model_config={"pretrained_cfg": settings}, safe_serialization=True
    )
    found = start("hf-hub:somebody/network")
    assert "downloading the weights of hf-hub:somebody/network" in capsys.readouterr().err
    assert (found.config.name, found.views.size) == ("test_vit", 64)
    assert found.views.mean == (0.5, 0.5, 0.5)
    x = torch.randn(2, 3, 64, 64)
    expected = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features(found.encoder, x), expected.detach())
    asked = len(hub.asked)
    again = open_model(KNNConfig(model="hf_hub:somebody/network", data="x", size=40))
    assert again.views.size == 48
    assert len(hub.asked) == asked
    assert "downloading" not in capsys.readouterr().err


def test_weights_that_cannot_be_had_are_one_sentence_with_the_mend(
    tmp_path: Path, hub: type[Hub]
) -> None:
    with pytest.raises(UserError, match=r"cannot be downloaded .* copy the cache .* --init FILE"):
        start("timm:test_vit")
    assert hub.asked


def test_nothing_but_a_named_hub_uses_a_network(tmp_path: Path, hub: type[Hub]) -> None:
    start(write(FAMILIES["ResNet"], tmp_path / "x.pth"), 64)
    export(build(EncoderConfig(name="test_resnet"), 32), tmp_path / "encoder", start_views())
    start(tmp_path)
    assert hub.asked == []


def start_views() -> Any:
    from selfsup.config import ViewsConfig

    return ViewsConfig(size=32)


def test_settings_that_contradict_published_weights_are_refused(tmp_path: Path) -> None:
    export(build(EncoderConfig(name="test_resnet"), 96), tmp_path / "encoder", start_views())
    for settings, sentence in (
        ({"name": "resnet50"}, "--encoder.name resnet50: the encoder of --init"),
        ({"format": "moco"}, "--format is for a file of weights"),
        ({"moving_average": True}, "--moving-average is for a file of weights"),
    ):
        with pytest.raises(UserError, match=sentence):
            start(tmp_path, **settings)


def test_the_users_normalisation_is_never_overridden_in_silence(tmp_path: Path) -> None:
    file = write(FAMILIES["ResNet"], tmp_path / "x.pth")
    settings: Any = {"data": images(tmp_path), "steps": 1, "batch": 4, "report": False}
    given = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    run = selfsup.pretrain(out=tmp_path / "a", init=str(file), views=given, **settings)
    assert load(run.folder)[1].mean == (0.5, 0.5, 0.5)  # of a file it is only the usual one
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    with pytest.raises(UserError, match=r"--views.mean .* was trained with \(0.5, 0.5, 0.5\)"):
        selfsup.pretrain(out=tmp_path / "b", init=run, views=imagenet, **settings)
    config = json.loads((run.folder / "encoder" / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]


def test_the_crop_of_published_weights_is_kept_through_training(tmp_path: Path) -> None:
    export(
        build(EncoderConfig(name="test_resnet"), 96), tmp_path / "encoder",
        replace(start_views(), size=96, crop=0.6, interpolation="bilinear"),
    )  # fmt: skip
    run = selfsup.pretrain(
        images(tmp_path), out=tmp_path / "a", init=tmp_path, steps=1, batch=4, report=False
    )
    views = load(run.folder)[1]
    assert (views.size, views.crop, views.interpolation) == (96, 0.6, "bilinear")
