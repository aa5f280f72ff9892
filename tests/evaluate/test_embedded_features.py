"""Evaluations, indexes, audits and searches of a folder of embeddings: those of its images."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import called
from pictures import folder
from torch import nn

import selfsup
from selfsup.config import (
    EmbedConfig,
    EncoderConfig,
    HealthConfig,
    IndexConfig,
    KNNConfig,
    LinearConfig,
    RetrievalConfig,
    VerifyConfig,
    ViewsConfig,
)
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import Encoder, build, export
from selfsup.evaluate import run
from selfsup.evaluate.embedding_folder import embed_folder
from selfsup.evaluate.indexing import build_index
from selfsup.evaluate.results import Figures
from selfsup.search.query import search_index

SMALL: dict[str, Any] = {"workers": 0, "batch": 8, "resamples": 20}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; images and test images, of which one is broken and two are in both; embeddings."""
    room = tmp_path_factory.mktemp("stored")
    for name, seed in (("run", 0), ("other", 1)):
        torch.manual_seed(seed)
        encoder = build(EncoderConfig(name="test_resnet", stem="standard"), 24)
        export(encoder, room / name / "encoder", ViewsConfig(size=24))
    folder(room / "images", classes=4, each=8)
    folder(room / "test", classes=4, each=14)
    for file in (room / "test").rglob("[0-7].png"):
        if file.name not in ("0.png", "1.png") or file.parent.name != "class0":
            file.unlink()
    (room / "images" / "class1" / "2.png").write_bytes(b"no image")
    for name, dtype in (("images", "float32"), ("test", "float32"), ("images", "float16")):
        out = room / f"{name}-{dtype}"
        config = EmbedConfig(
            model=str(room / "run"),
            data=str(room / name),
            out=str(out),
            dtype=dtype,  # type: ignore[arg-type]
            batch=8,
            part=16,
            workers=0,
            max_bad=0.1,
        )
        embed_folder(config)
    return room


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each forward pass of an encoder."""
    calls: list[int] = []
    forward = Encoder.forward

    def count(self: nn.Module, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return forward(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "forward", count)
    return calls


TOOLS: dict[str, tuple[Any, type, dict[str, str]]] = {
    "retrieval": (run.retrieval, RetrievalConfig, {}),
    "retrieval of queries": (run.retrieval, RetrievalConfig, {"queries": "test"}),
    "knn": (run.knn, KNNConfig, {}),
    "knn of test images": (run.knn, KNNConfig, {"test": "test"}),
    "linear": (run.linear, LinearConfig, {"test": "test"}),
    "verify": (run.verify, VerifyConfig, {}),
    "health": (run.health, HealthConfig, {}),
}


def measured(room: Path, tool: str, kind: str = "", **more: Any) -> Any:
    """An evaluation of images, or of embeddings of a kind such as "-float32"."""
    evaluate, config, sets = TOOLS[tool]
    other = {
        name: str(room / f"{value}{'-float32' if kind else ''}") for name, value in sets.items()
    }
    return evaluate(
        config(model=str(room / "run"), data=str(room / f"images{kind}"), **other, **SMALL, **more)
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_figures_of_embeddings_are_those_of_the_images(
    room: Path, tool: str, counted: list[int]
) -> None:
    of_images = measured(room, tool)
    del counted[:]
    of_folder = measured(room, tool, "-float32")
    assert of_folder.figures == of_images.figures
    assert of_folder.baselines == of_images.baselines
    assert of_folder.margins == of_images.margins
    assert of_folder.facts == of_images.facts
    assert of_folder.details == of_images.details
    alone = measured(room, tool, "-float32", baselines=(), **no_views(tool))
    assert alone.figures.keys() <= of_images.figures.keys()


def no_views(tool: str) -> dict[str, Any]:
    return {"views": 0} if tool == "health" else {}


def value(figures: Figures, name: str) -> float:
    found = figures[name]
    return found if isinstance(found, float) else found.value


@pytest.mark.parametrize("tool", ["retrieval", "knn", "health"])
def test_figures_of_float16_are_those_of_the_images_to_two_hundredths(
    room: Path, tool: str
) -> None:
    settings = {"baselines": (), **no_views(tool)}
    of_images = measured(room, tool, **settings).figures
    of_folder = measured(room, tool, "-float16", **settings).figures
    assert of_folder.keys() == of_images.keys()
    for name in of_images:
        assert value(of_folder, name) == pytest.approx(value(of_images, name), rel=2e-2, abs=2e-2)


def test_nothing_is_embedded_again(room: Path, counted: list[int]) -> None:
    for tool in TOOLS:
        measured(room, tool, "-float32", baselines=(), leaks=False, **no_views(tool))
    build_index(IndexConfig(**index_of(room, "images-float32", room / "counted")))
    assert counted == []


@pytest.mark.parametrize("tool", ["retrieval", "knn of test images", "health"])
def test_embeddings_of_another_model_are_one_sentence(room: Path, tool: str) -> None:
    evaluate, config, sets = TOOLS[tool]
    other = {name: str(room / f"{value}-float32") for name, value in sets.items()}
    data = str(room / "images-float32")
    with pytest.raises(UserError, match=r"has embeddings of other weights \(sha256 \w+, not \w+\)"):
        evaluate(config(model=str(room / "other"), data=data, **other, **SMALL))
    with pytest.raises(UserError, match=r"was made at 24 pixels, not 16: .* Give that --model and"):
        evaluate(config(model=str(room / "run"), size=16, data=data, **other, **SMALL))


def test_a_model_beside_it_is_embedded_from_the_images(room: Path) -> None:
    other = (str(room / "other"),)
    of_images = measured(room, "knn", against=other)
    assert measured(room, "knn", "-float32", against=other).baselines == of_images.baselines


def test_where_images_are_gone_figures_stay_and_baselines_are_left_out(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(room, tmp_path / "moved")
    moved = tmp_path / "moved"
    for name in ("images", "test"):
        for kind in ("float32", "float16"):
            manifest = moved / f"{name}-{kind}" / "embeddings.json"
            if manifest.exists():
                record = json.loads(manifest.read_text())
                manifest.write_text(json.dumps(record | {"data": str(tmp_path / "gone")}))
    for tool in TOOLS:
        kept = measured(moved, tool, "-float32")
        assert kept.baselines == {}
        of_images = measured(room, tool, baselines=(), **no_views(tool)).figures
        shared = [name for name in of_images if name in kept.figures]
        assert shared
        for name in shared:
            if not name.endswith("not in train"):
                assert value(kept.figures, name) == value(of_images, name)
    assert "not at" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"are needed for this, and cannot be opened: .*gone"):
        measured(moved, "knn", "-float32", against=(str(room / "other"),))
    done = called(
        "tools/audit.py", "--data", moved / "images-float32", "--out", tmp_path / "a.json"
    )
    assert done.returncode == 3
    assert "cannot be opened" in done.stderr


def test_other_images_at_the_same_place_are_noticed(room: Path, tmp_path: Path) -> None:
    shutil.copytree(room / "images-float32", tmp_path / "stored")
    images = folder(tmp_path / "images", classes=4, each=7)
    manifest = tmp_path / "stored" / "embeddings.json"
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(record | {"data": str(images)}))
    settings = {"model": str(room / "run"), "data": str(tmp_path / "stored"), **SMALL}
    with pytest.raises(UserError, match="has other images by now: 32 images -> 28"):
        run.knn(KNNConfig(**settings))


def index_of(room: Path, name: str, out: Path) -> dict[str, Any]:
    return {
        "model": str(room / "run"),
        "data": str(room / name),
        "out": str(out),
        "workers": 0,
        "batch": 8,
    }


def test_an_index_of_embeddings_is_that_of_the_images(room: Path, tmp_path: Path) -> None:
    of_images = build_index(IndexConfig(**index_of(room, "images", tmp_path / "a")))
    of_folder = build_index(IndexConfig(**index_of(room, "images-float32", tmp_path / "b")))
    assert of_folder.index.rows == of_images.index.rows
    assert (of_folder.index.embeddings == of_images.index.embeddings).all()
    assert of_folder.unreadable == of_images.unreadable == 1


def test_a_search_of_the_folder_itself_is_that_of_its_index(room: Path, tmp_path: Path) -> None:
    build_index(IndexConfig(**index_of(room, "images", tmp_path / "index")))
    queries = [room / "images" / "class2" / "3.png", room / "test" / "class1" / "9.png"]
    of_index = search_index(tmp_path / "index", queries, k=7)
    of_folder = search_index(room / "images-float32", queries, k=7)
    named = [[(hit.name, hit.label) for hit in hits] for hits in of_index.hits]
    assert [[(hit.name, hit.label) for hit in hits] for hits in of_folder.hits] == named
    assert of_folder.itself == of_index.itself == [["class2/3.png"], []]
    for ours, theirs in zip(of_folder.hits, of_index.hits, strict=True):
        for hit, other in zip(ours, theirs, strict=True):
            assert hit.similarity == pytest.approx(other.similarity, abs=1e-6)


def test_an_audit_of_the_folder_is_that_of_its_images(room: Path, tmp_path: Path) -> None:
    for name in ("images", "images-float32"):
        out = tmp_path / f"{name}.json"
        done = called("tools/audit.py", "--data", room / name, "--out", out)
        assert done.returncode == 0, done.stderr
    first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("images", "images-float32")
    )
    assert second | {"data": ""} == first | {"data": ""}


def test_calls_from_python_read_the_folder(room: Path, counted: list[int]) -> None:
    stored = selfsup.embed(room / "run", room / "images-float32")
    assert counted == []
    made = selfsup.embed(room / "run", room / "images", batch=8)
    assert stored.names == made.names
    assert stored.labels == made.labels
    assert torch.equal(stored.x, made.x)


def test_a_folder_of_embeddings_is_not_mixed_with_images(room: Path) -> None:
    both = f"{room / 'images-float32'} + {room / 'test'}"
    with pytest.raises(UserError, match="cannot be mixed: give it alone"):
        run.knn(KNNConfig(model=str(room / "run"), data=both, **SMALL))
