"""`finetune --distil`: features are stored as pretraining's, and a run keeps its teacher."""

from pathlib import Path

import numpy as np
import pytest
from launch import FINETUNE, PRETRAIN, called, recipe
from pictures import folder
from teachers import exported, teacher

pytestmark = pytest.mark.slow

TOOL = "tools/finetune.py"


def flags(root: Path, out: str, *more: str | Path) -> list[str | Path]:
    """A small run on root/images."""
    place: tuple[str | Path, ...] = ("--data", root / "images", "--out", root / out)
    return [*place, *FINETUNE, "--workers", "0", *more]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder(tmp_path / "images")
    teacher(tmp_path / "teacher")
    return tmp_path


def test_pretraining_and_fine_tuning_use_one_file_of_features(root: Path) -> None:
    distil = ("--data", root / "images", *PRETRAIN, "--method.teacher", root / "teacher")
    cache = root / "features"
    done = called(
        "recipes/pretrain_distil.py", *distil, "--out", root / "a", "--method.cache", cache
    )
    assert done.returncode == 0, done.stderr
    more = ("--distil", root / "teacher", "--distil.cache", cache)
    done = called(TOOL, *flags(root, "b", *more))
    assert done.returncode == 0, done.stderr
    assert "the teacher embeds" not in done.stdout
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("loss", ["triplet", "supcon", "arcface"])
def test_every_family_of_ranking_losses_follows_a_teacher(root: Path, loss: str) -> None:
    more = ("--loss", loss, "--distil", root / "teacher")
    done = called(TOOL, *flags(root, "run", *more))
    assert done.returncode == 0, done.stderr
    assert "the teacher embeds 24 images, once" in done.stdout
    assert '"distil": ' in (root / "run" / "log.jsonl").read_text()
    done = called(TOOL, *flags(root, "plain", "--loss", loss))
    assert done.returncode == 0, done.stderr
    assert '"distil": ' not in (root / "plain" / "log.jsonl").read_text()
    assert exported(root, "plain") != exported(root, "run")


def test_a_teacher_without_weight_changes_no_number_of_the_run(root: Path) -> None:
    assert called(TOOL, *flags(root, "plain")).returncode == 0
    for loss in ("relational", "cosine"):
        more = ("--distil", root / "teacher", "--distil.weight", "1e-30", "--distil.loss", loss)
        done = called(TOOL, *flags(root, loss, *more))
        assert done.returncode == 0, done.stderr
        assert exported(root, loss) == exported(root, "plain")


def test_rows_of_features_are_of_the_images_that_have_a_label(root: Path) -> None:
    files = sorted((root / "images").rglob("*.png"))
    names = [f"{file.relative_to(root)}" for file in files]
    labels = ["" if i % 4 == 0 else f"class{i % 3}" for i in range(len(files))]
    rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    (root / "some.csv").write_text("\n".join(["path,label", *rows]))
    more = ("--distil", root / "teacher", "--distil.precision", "float32")
    done = called(TOOL, *flags(root, "all", *more))
    assert done.returncode == 0, done.stderr
    done = called(TOOL, *flags(root, "some", *more, "--data", root / "some.csv"))
    assert done.returncode == 0, done.stderr
    of_all, of_some = (
        np.load(next((root / out).glob("teacher-*/features.npy"))) for out in ("all", "some")
    )
    with_label = [i for i, label in enumerate(labels) if label]
    np.testing.assert_allclose(of_some, of_all[with_label], rtol=1e-4, atol=1e-5)


def test_the_start_may_be_its_own_teacher(root: Path) -> None:
    start = ("--init", root / "teacher", "--distil", root / "teacher")
    small = ("--data", root / "images", "--out", root / "run", *FINETUNE[4:], "--workers", "0")
    done = called(TOOL, *small, *start, "--loss", "supcon")
    assert done.returncode == 0, done.stderr


def test_a_live_teacher_sees_the_views_and_stores_nothing(root: Path) -> None:
    more = ("--distil", root / "teacher", "--distil.targets", "live", "--micro-batch", "3")
    done = called(TOOL, *flags(root, "run", *more))
    assert done.returncode == 0, done.stderr
    assert not list((root / "run").glob("*teacher-*"))


@pytest.mark.grid
def test_two_processes_write_the_features_of_one_for_a_ranking_run(root: Path) -> None:
    for out, processes in (("one", 1), ("two", 2)):
        more = ("--distil.teacher", root / "teacher")
        done = recipe("recipes/finetune_pairs.py", *flags(root, out, *more), processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the teacher embeds 24 images") == 1
    one, two = ((root / out).glob("teacher-*/features.npy") for out in ("one", "two"))
    assert np.array_equal(np.load(next(one)), np.load(next(two)))


def test_a_run_goes_on_with_its_teacher_wherever_that_lies_and_with_no_other(root: Path) -> None:
    with_teacher = ("--distil", root / "teacher")
    assert called(TOOL, *flags(root, "run", *with_teacher)).returncode == 0
    assert called(TOOL, *flags(root, "plain")).returncode == 0
    teacher(root / "other", seed=1)
    refused = {
        "another": (("run", "--distil", root / "other"), "began with a teacher whose sha256 is"),
        "none": (("run",), "distil.teacher"),
        "a new one": (("plain", *with_teacher), "distil.teacher '' -> "),
        "another weight": (
            ("run", *with_teacher, "--distil.weight", "2"),
            "(distil.weight 0.1 -> 2.0)",
        ),
    }
    for what, (args, sentence) in refused.items():
        done = called(TOOL, *flags(root, *map(str, args)))
        assert done.returncode == 2, what
        assert sentence in done.stderr, what
    (root / "teacher").rename(root / "moved")
    more = ("--distil", root / "moved", "--distil.cache", root / "elsewhere")
    done = called(TOOL, *flags(root, "run", *more))
    assert done.returncode == 0, done.stderr
    assert "has done all its 4 steps" in done.stdout


WRONG = {
    "a typo": (("--distil", "nowhere"), "--distil.teacher nowhere does not exist"),
    "nothing": (("--distil", ""), "--distil needs a teacher: a run, a folder, a file or timm:NAME"),
    "no value": (("--distil",), "--distil needs a value"),
    "twice": (
        ("--distil", "teacher", "--distil.teacher", "teacher"),
        "--distil is --distil.teacher: give one",
    ),
    "a weight alone": (
        ("--distil.weight", "0.5"),
        "--distil.weight 0.5 has no effect without a teacher: give --distil.teacher",
    ),
    "a loss alone": (
        ("--distil.loss", "cosine"),
        "--distil.loss cosine has no effect without a teacher",
    ),
    "no weight": (
        ("--distil", "teacher", "--distil.weight", "0"),
        "--distil.weight must be above 0, not 0",
    ),
    "a file as cache": (
        ("--distil", "teacher", "--distil.cache", "file"),
        "--distil.cache file is a file; give a folder",
    ),
    "a grey student": (
        (
            *("--distil", "teacher", "--views.mean", "0.5", "--views.std", "0.2"),
            *("--views.saturation", "0", "--views.hue", "0"),
        ),
        "the teacher takes images of 3 channels, and --views.mean has 1",
    ),
    "another spelling": (("--teacher", "teacher"), "--teacher: here it is --distil.teacher"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_teacher_is_one_sentence(
    root: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, sentence = WRONG[what]
    (root / "file").write_text("x")
    monkeypatch.chdir(root)
    done = called(TOOL, *flags(root, "run", *more), cwd=root)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "--method.teacher" not in done.stderr


def test_the_help_names_the_short_flag() -> None:
    done = called(TOOL, "--help")
    assert "  --distil " in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
