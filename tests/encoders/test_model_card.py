"""The model card of an exported encoder: true, complete, readable by the hub, and runnable."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from launch import FINETUNE, called
from pictures import folder, picture

from selfsup.core.errors import UserError
from selfsup.encoders.bundle import load_bundle, write_bundle
from selfsup.encoders.encoder import Encoder, build, export
from selfsup.encoders.model_card import CARD, MARK, model_card, refresh_card

RECORD = {
    "tool": "retrieval",
    "figures": {"MAP@R": {"value": 0.4521, "low": 0.3586, "high": 0.5505}, "AUC": 0.75},
    "baselines": {"pixels": {"MAP@R": {"value": 0.1425, "low": 0.0833, "high": 0.2269}}},
    "facts": {"gallery": 160},
    "settings": {"data": "/home/ann/secret/test.npz"},
    "warnings": ["3 of 160 images are in train too"],
}


def exported(run: Path, **settings: Any) -> Path:
    """A folder as a run leaves it, without its training."""
    from selfsup.config import EncoderConfig, ViewsConfig

    encoder: Encoder = build(EncoderConfig(name="test_resnet"), 32)
    run.mkdir()
    export(encoder, run / "encoder", ViewsConfig(size=32))
    usual = {"data": "/home/ann/products", "init": "", "seed": 3, "method": {"name": "simclr"}}
    (run / "config.yaml").write_text(yaml.safe_dump(usual | settings))
    refresh_card(run)
    return run


def head(run: Path) -> Any:
    return ModelCard((run / "encoder" / CARD).read_text()).data


def test_the_hub_reads_figures_and_tags_of_a_card(tmp_path: Path) -> None:
    run = exported(tmp_path / "mine")
    (run / "retrieval.json").write_text(json.dumps(RECORD))
    refresh_card(run)
    data = head(run)
    assert data.library_name == "timm"
    assert data.pipeline_tag == "image-feature-extraction"
    (result,) = data.eval_results
    assert (result.metric_name, result.metric_value) == ("MAP@R", 0.4521)
    assert result.dataset_name == "test.npz"


def test_a_card_has_intervals_baselines_warnings_and_no_path_of_the_machine(tmp_path: Path) -> None:
    run = exported(tmp_path / "mine")
    (run / "retrieval.json").write_text(json.dumps(RECORD))
    text = model_card(run)
    assert "| MAP@R | 0.452 [0.359, 0.550] | 0.142 [0.083, 0.227] |" in text
    assert "| AUC | 0.75 |  |" in text
    assert "Warning: 3 of 160 images are in train too" in text
    assert "| images | products |" in text
    assert "/home/ann" not in text


def test_an_encoder_that_nobody_measured_says_how_to(tmp_path: Path) -> None:
    text = model_card(exported(tmp_path / "mine"))
    assert "None yet: `selfsup retrieval" in text


@pytest.mark.parametrize(
    ("init", "licence", "base"),
    [
        ("timm:vit_small_patch14_dinov2", "apache-2.0", "timm/vit_small_patch14_dinov2.lvd142m"),
        ("hf-hub:timm/resnet18.a1_in1k", "unknown", "timm/resnet18.a1_in1k"),
        ("timm:no_such_model", "unknown", None),
        ("/weights/moco_v2_800ep.pth", "unknown", None),
        ("", "unknown", None),
    ],
)
def test_a_licence_is_named_only_where_it_is_known(
    tmp_path: Path, init: str, licence: str, base: str | None
) -> None:
    data = head(exported(tmp_path / "mine", init=init))
    assert data.license == licence
    assert data.base_model == base


def test_a_card_that_somebody_made_theirs_is_left_alone(tmp_path: Path) -> None:
    run = exported(tmp_path / "mine")
    file = run / "encoder" / CARD
    mine = file.read_text().replace(MARK, "").replace("license: unknown", "license: mit")
    file.write_text(mine)
    (run / "retrieval.json").write_text(json.dumps(RECORD))
    refresh_card(run)
    assert file.read_text() == mine


def test_a_folder_without_an_encoder_gets_no_card(tmp_path: Path) -> None:
    refresh_card(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["not json {", "[]", '{"figures": 1}'])
def test_damaged_files_beside_an_encoder_leave_their_part_out(tmp_path: Path, damage: str) -> None:
    run = exported(tmp_path / "mine")
    for name in ("retrieval.json", "validation.json", "adapt.json", "about.json", "bundle.json"):
        (run / name).write_text(damage)
    (run / "config.yaml").write_text("- no: settings")
    assert "None yet" in model_card(run)


def test_a_bundle_takes_the_card_along_and_keeps_it(tmp_path: Path) -> None:
    run = exported(tmp_path / "mine")
    (run / "retrieval.json").write_text(json.dumps(RECORD))
    write_bundle(run, tmp_path / "bundle")
    write_bundle(tmp_path / "bundle", tmp_path / "again")
    card = (tmp_path / "again" / "encoder" / CARD).read_text()
    assert "0.452 [0.359, 0.550]" in card
    assert "| method | simclr |" in card
    refresh_card(tmp_path / "again")
    assert (tmp_path / "again" / "encoder" / CARD).read_text() == card


def test_a_bundle_of_an_unfinished_run_is_refused_as_before(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no exported encoder"):
        write_bundle(tmp_path, tmp_path / "bundle")


@pytest.mark.slow
def test_the_code_on_a_card_runs_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "images")
    run = tmp_path / "run"
    done = called("recipes/finetune_triplet.py", "--data", data, "--out", run, *FINETUNE)
    assert done.returncode == 0, done.stderr
    text = (run / "encoder" / CARD).read_text()
    assert "| images | images: 24, names " in text
    assert "| steps | 4 |" in text
    first = called("tools/retrieval.py", "--model", run, "--data", data, "--against")
    assert first.returncode == 0, first.stderr
    assert "retrieval on images:" in (run / "encoder" / CARD).read_text()

    monkeypatch.chdir(run / "encoder")
    for name in "ab":
        picture(0, ord(name)).save(f"{name}.jpg")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, CARD, "exec"), names)
    assert names["embeddings"].shape == (2, 8)
    image = names["transform"](picture(0, ord("a")).convert("RGB"))
    with_timm = names["model"](image[None]).detach()
    assert torch.cosine_similarity(names["embeddings"][:1], with_timm).item() > 0.99
    assert load_bundle(run).encoder.dim == 8


@pytest.mark.parametrize(
    "record",
    [
        RECORD | {"figures": {"MAP@R": {"value": 0.4, "low": None, "high": 0.5}}},
        RECORD | {"figures": [1, 2]},
        RECORD | {"baselines": [1]},
        RECORD | {"facts": None},
    ],
)
def test_a_record_that_cannot_be_drawn_costs_no_encoder(record: Any, tmp_path: Path) -> None:
    run = exported(tmp_path / "mine")
    (run / "retrieval.json").write_text(json.dumps(record))
    refresh_card(run)
    assert MARK in (run / "encoder" / CARD).read_text()


def test_any_name_of_images_can_stand_in_a_card(tmp_path: Path) -> None:
    run = exported(tmp_path / "mine", data="caf\udce9", method={"name": "supcon"})
    card = (run / "encoder" / CARD).read_text()
    assert "caf" in card
    assert "trained with labels" in card


def test_a_card_names_baselines_without_folders(tmp_path: Path) -> None:
    run = exported(tmp_path / "mine")
    baselines = {"/home/ann/secret/runs/x": {"MAP@R": RECORD["figures"]["MAP@R"]}}  # type: ignore[index]
    (run / "retrieval.json").write_text(json.dumps(RECORD | {"baselines": baselines}))
    assert "secret" not in model_card(run)
    assert "| x |" in model_card(run)
