"""The teacher of a run: opened, recorded, the same when the run goes on, with its own view."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from launch import PRETRAIN, called, recipe
from pictures import folder, picture
from teachers import VIEW, exported, teacher
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.data.sources import Source
from selfsup.evaluate.teacher_features import open_teacher, principal_directions
from selfsup.methods.distil import StoredFeatures
from selfsup.training.run import Run

DISTIL = "recipes/pretrain_distil.py"


def flags(root: Path, out: str, *more: str | Path) -> list[str | Path]:
    """The command of a small run on root/images with the teacher root/teacher."""
    place = ("--data", root / "images", "--out", root / out, "--method.teacher", root / "teacher")
    return [*place, *PRETRAIN, "--save-every", "2", "--workers", "0", *more]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder(tmp_path / "images")
    teacher(tmp_path / "teacher")
    return tmp_path


def test_a_teacher_brings_its_own_view(tmp_path: Path) -> None:
    encoder, views = open_teacher(str(teacher(tmp_path / "teacher")))
    assert encoder.dim == 12
    assert (views.size, views.interpolation) == (24, "bilinear")
    assert (views.mean, views.std) == (VIEW.mean, VIEW.std)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "distillation needs a teacher: --method.teacher takes"),
        ("nowhere", "--method.teacher nowhere does not exist"),
        ("resnet81", "--method.teacher resnet81 does not exist"),
        ("empty", "empty holds no exported encoder: no encoder/config.json"),
        ("unfinished", "unfinished holds no exported encoder: its run has not finished"),
        ("bare", "bare cannot be loaded"),
    ],
)
def test_what_is_no_teacher_is_said_in_a_sentence(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    (teacher(tmp_path / "bare") / "model.safetensors").unlink()
    with pytest.raises(UserError, match=message):
        open_teacher(text)


def test_the_directions_are_those_in_which_features_vary_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfsup.evaluate.teacher_features.SAMPLED_IMAGES", 2000)
    draw = np.random.default_rng(0)
    axes = np.linalg.qr(draw.normal(size=(20, 20)))[0]
    rows = (draw.normal(size=(2000, 20)) * ([9, 8, 7] + [0.1] * 17)) @ axes.T + 5
    rows[3] = 0  # an image that cannot be read
    targets = StoredFeatures(rows, torch.from_numpy(rows.mean(0)).float())
    run, images = SimpleNamespace(main=True), range(2000)

    def directions(width: int) -> Tensor | None:
        return principal_directions(cast(Run, run), targets, cast(Source, images), width)

    found = directions(3)
    assert found is not None
    assert torch.allclose(found.T @ found, torch.eye(3), atol=1e-5)
    expected = torch.from_numpy(axes[:, :3]).float()
    assert torch.allclose(found @ found.T, expected @ expected.T, atol=0.01)
    assert directions(0) is None
    assert directions(20) is None
    with pytest.raises(UserError, match=r"--method\.width must be 0"):
        directions(-1)


@pytest.mark.slow
def test_a_run_is_the_same_whether_its_features_are_computed_or_there_already(root: Path) -> None:
    shared = ("--method.cache", root / "features")
    first = called(DISTIL, *flags(root, "a", *shared))
    assert first.returncode == 0, first.stderr
    assert "the teacher embeds 24 images, once" in first.stdout
    second = called(DISTIL, *flags(root, "b", *shared))
    assert second.returncode == 0, second.stderr
    assert "the teacher embeds" not in second.stdout
    assert exported(root, "a") == exported(root, "b")
    assert len(list((root / "features").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_write_the_features_of_one(root: Path) -> None:
    for out, processes in (("one", 1), ("two", 2)):
        done = recipe(DISTIL, *flags(root, out, "--method.norm", "layer"), processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the teacher embeds 24 images") == 1
    one, two = ((root / out).glob("teacher-*/features.npy") for out in ("one", "two"))
    assert np.array_equal(np.load(next(one)), np.load(next(two)))


@pytest.mark.slow
def test_another_teacher_does_not_go_on_with_a_run_and_a_moved_one_does(root: Path) -> None:
    done = called(DISTIL, *flags(root, "run"))
    assert done.returncode == 0, done.stderr
    recorded = json.loads((root / "run" / "teacher.json").read_text())
    assert recorded["teacher"] == str(root / "teacher")
    teacher(root / "other", seed=1)
    refused = called(DISTIL, *flags(root, "run", "--method.teacher", root / "other"))
    assert refused.returncode == 2
    assert "began with a teacher whose sha256 is" in refused.stderr
    (root / "teacher").rename(root / "moved")
    done = called(DISTIL, *flags(root, "run", "--method.teacher", root / "moved"))
    assert done.returncode == 0, done.stderr
    assert "has done all its 4 steps" in done.stdout


@pytest.mark.slow
def test_other_images_under_the_same_names_have_features_of_their_own(root: Path) -> None:
    shared = ("--method.cache", root / "features")
    assert called(DISTIL, *flags(root, "a", *shared)).returncode == 0
    picture(3, 99).save(root / "images" / "class0" / "1.png")
    done = called(DISTIL, *flags(root, "b", *shared))
    assert "the teacher embeds 24 images" in done.stdout
    assert len(list((root / "features").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosine", "mse", "relational", "queue"])
def test_a_live_teacher_trains_with_every_loss_and_stores_nothing(root: Path, loss: str) -> None:
    more = ("--method.targets", "live", "--method.loss", loss, "--method.queue", "16")
    done = called(DISTIL, *flags(root, "run", *more, "--micro-batch", "4"))
    assert done.returncode == 0, done.stderr
    assert not list((root / "run").glob("*teacher-*"))


WRONG = {
    "no teacher": (("--method.teacher", ""), "distillation needs a teacher"),
    "a name": (("--method.teacher", "resnet81"), "--method.teacher resnet81 does not exist"),
    "a long queue": (
        ("--method.loss", "queue", "--method.queue", "25"),
        "--method.queue 25 is longer than the data: there are 24 images",
    ),
    "a grey student": (
        (
            *("--views.mean", "0.5", "--views.std", "0.2", "--views.saturation", "0"),
            *("--views.hue", "0", "--views.grey", "0"),
        ),
        "the teacher takes images of 3 channels, and --views.mean has 1",
    ),
    "few images": (("--batch", "32"), "24 images are fewer than"),
    "an unknown loss": (("--method.loss", "kl"), "--method.loss"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_gets_one_sentence_and_status_2(root: Path, what: str) -> None:
    more, sentence = WRONG[what]
    done = called(DISTIL, *flags(root, "run", *more))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
