"""Stored features: computed once, whole or not there, of the right encoder, images and view."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import folder
from torch import Tensor, nn

from selfsup.config import PretrainConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.open import open_source
from selfsup.data.sources import Source
from selfsup.encoders.encoder import Encoder
from selfsup.evaluate.feature_store import FEATURES, MANIFEST, MEAN, stored_features
from selfsup.evaluate.features import extract
from selfsup.training.run import Run

VIEW = ViewsConfig(size=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


class Tiny(nn.Module):
    """Six features of an image, and a count of the images that it has seen."""

    num_classes = 6

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 5, stride=4)
        self.scale = scale
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        features: Tensor = self.layer(x).mean((2, 3)) * self.scale
        return features


def tiny(scale: float = 1.0) -> Encoder:
    torch.manual_seed(0)
    return Encoder(Tiny(scale), channels_last=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(PretrainConfig(data="", out=str(tmp_path / "run"), workers=0))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(str(folder(tmp_path / "images")))


def stored(
    run: Run, source: Source, encoder: Encoder | None = None, **more: Any
) -> tuple[np.ndarray, Tensor]:
    facts = {"images": len(source), "width": 6, "precision": "float32", **more}
    return stored_features(run, encoder or tiny(), VIEW, source, folder=run.folder, facts=facts)


def place(run: Run) -> Path:
    (found,) = run.folder.glob("teacher-*")
    return found


@pytest.mark.parametrize(("precision", "digits"), [("float32", 0), ("float16", 1e-3)])
def test_rows_are_the_features_of_the_images_in_order(
    run: Run, source: Source, precision: str, digits: float
) -> None:
    rows, mean = stored(run, source, precision=precision)
    expected = extract(tiny(), source, VIEW, device=torch.device("cpu")).x
    assert rows.dtype == precision
    torch.testing.assert_close(torch.from_numpy(rows.copy()).float(), expected, rtol=digits, atol=0)
    torch.testing.assert_close(mean, expected.mean(0), rtol=1e-3, atol=1e-5)


def test_a_second_run_reads_what_the_first_has_computed(run: Run, source: Source) -> None:
    first, _ = stored(run, source)
    encoder = tiny()
    second, _ = stored(run, source, encoder)
    assert np.array_equal(first, second)
    assert encoder.model.images == 0


@pytest.mark.parametrize(
    "more", [{"teacher": "b"}, {"digest": "b"}, {"view": [24]}, {"precision": "float16"}]
)
def test_another_teacher_image_view_or_precision_has_a_folder_of_its_own(
    run: Run, source: Source, more: dict[str, Any]
) -> None:
    stored(run, source)
    encoder = tiny()
    stored(run, source, encoder, **more)
    assert encoder.model.images == len(source)
    assert len(list(run.folder.glob("teacher-*"))) == 2


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte": (lambda p: flip_a_byte(p / FEATURES), f"{FEATURES} has changed"),
    "a short file": (
        lambda p: (p / FEATURES).write_bytes((p / FEATURES).read_bytes()[:200]),
        f"{FEATURES} has changed",
    ),
    "no file": (lambda p: (p / FEATURES).unlink(), f"{FEATURES} is missing"),
    "another mean": (lambda p: flip_a_byte(p / MEAN), f"{MEAN} has changed"),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), f"{MANIFEST} is missing"),
    "half a manifest": (lambda p: (p / MANIFEST).write_text("{"), f"{MANIFEST} cannot be read"),
    "a list": (lambda p: (p / MANIFEST).write_text("[]"), f"{FEATURES} has changed"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_features_are_noticed_and_computed_again(
    run: Run, source: Source, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = stored(run, source)[0][:].copy()
    damage, sentence = DAMAGE[what]
    damage(place(run))
    again, _ = stored(run, source)
    assert np.array_equal(again, whole)
    assert sentence in capsys.readouterr().out


def test_what_a_killed_process_left_is_no_result(run: Run, source: Source) -> None:
    whole = stored(run, source)[0][:].copy()
    left = place(run)
    left.rename(left.with_name(f".{left.name}.part"))
    np.save(left.with_name(f".{left.name}.part") / FEATURES, np.zeros((2, 2)))
    again, _ = stored(run, source)
    assert np.array_equal(again, whole)
    assert not list(run.folder.glob(".teacher-*"))


def test_an_unreadable_image_has_zeros_and_no_part_in_the_mean(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder(tmp_path / "bad")
    (images / "class1" / "2.png").write_bytes(b"no image")
    source = open_source(str(images))
    rows, mean = stored(run, source)
    bad = [i for i in range(len(source)) if source.name(i).endswith("class1/2.png")]
    assert [i for i in range(len(rows)) if not rows[i].any()] == bad
    readable = np.delete(rows, bad, axis=0)
    torch.testing.assert_close(mean, torch.from_numpy(readable).mean(0))
    assert "without 1 that cannot be read" in capsys.readouterr().out


def test_no_readable_image_is_an_error(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "bad", classes=1, each=3)
    for file in images.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 3 images can be read"):
        stored(run, open_source(str(images)))


@pytest.mark.parametrize(
    ("scale", "precision", "message"),
    [
        (float("nan"), "float32", "features are not finite"),
        (1e7, "float16", "do not fit float16; give --method.precision float32"),
        (1e-8, "float16", "do not fit float16; give --method.precision float32"),
    ],
)
def test_features_that_the_type_does_not_hold_are_refused_and_leave_nothing(
    run: Run, source: Source, scale: float, precision: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stored(run, source, tiny(scale), precision=precision)
    assert not list(run.folder.glob("*teacher-*"))
    stored(run, source, tiny(1e7), precision="float32")


def test_random_states_are_left_as_they_were(run: Run, source: Source) -> None:
    encoder = tiny()
    before = torch.get_rng_state()
    stored(run, source, encoder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_full_disk_is_noticed_before_anything_is_computed(
    run: Run, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(run.folder)._replace(free=100)
    monkeypatch.setattr("selfsup.evaluate.feature_store.shutil.disk_usage", lambda path: usage)
    encoder = tiny()
    with pytest.raises(UserError, match=r"need 0\.0 GB, and .* has 0\.0 GB free; give --method"):
        stored(run, source, encoder)
    assert encoder.model.images == 0
    assert not list(run.folder.glob("*teacher-*"))


def test_a_folder_of_one_teacher_is_not_the_folder_of_several(run: Run, source: Source) -> None:
    stored(run, source)
    facts = {"images": len(source), "width": 6, "precision": "float32"}
    with pytest.raises(UserError, match=f"give the folder around it, {run.folder}"):
        stored_features(run, tiny(), VIEW, source, folder=place(run), facts=facts)
    file = run.folder / "config.yaml"
    with pytest.raises(UserError, match="is a file; give a folder"):
        stored_features(run, tiny(), VIEW, source, folder=file, facts=facts)


def test_the_manifest_says_of_what_the_features_are(run: Run, source: Source) -> None:
    stored(run, source, teacher="abc")
    manifest = json.loads((place(run) / MANIFEST).read_text())
    assert manifest["facts"]["teacher"] == "abc"
    assert manifest["unreadable"] == 0
