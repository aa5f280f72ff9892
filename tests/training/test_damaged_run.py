"""A run folder that a crash or a person has damaged, and the same command again."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from launch import PRETRAIN, called, logged

from selfsup.training import checkpoint

STEPS = 4
MORE = ("--save-every", "1", "--log-every", "1", "--keep", "3", "--workers", "0", "--no-report")


def arrays(file: Path, seed: int, count: int = 24) -> Path:
    """Images of noise with labels 0 to 3."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(count) % 4)
    return file


def start(data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    flags: tuple[str | Path, ...] = ("--data", data, "--out", out, *PRETRAIN, *MORE, *more)
    return called("recipes/pretrain_simclr.py", *flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a run of them that was cut short after step 3."""
    root = tmp_path_factory.mktemp("damaged")
    done = start(arrays(root / "data.npz", 0), root / "run")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root / "run" / "encoder")
    shutil.rmtree(root / "run" / "checkpoints" / "step-00000004")
    return root


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """The images and the unfinished run, in the place where they were made."""
    kept = tmp_path / "kept"
    shutil.copytree(finished, kept)
    yield finished
    shutil.rmtree(finished)
    shutil.copytree(kept, finished)


@pytest.mark.parametrize(
    "tail",
    [
        b"\xff\xfe\n",
        b"7\n",
        b"{}\n",
        b'{"step": "x"}\n',
        b"[" * 100_000 + b"\n",
        b'{"step": 3, "lo',
    ],
)
def test_damaged_lines_of_the_log_are_skipped(work: Path, tail: bytes) -> None:
    with (work / "run" / "log.jsonl").open("ab") as log:
        log.write(tail)
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 0, done.stderr
    assert logged(work / "run") == STEPS


@pytest.mark.parametrize(
    "text",
    ["", "optim: [1", "!!python/object/apply:os.system ['true']", "7", "\x00\x01", "a: &a [*a]"],
)
def test_a_damaged_config_is_written_again_from_the_checkpoint(work: Path, text: str) -> None:
    before = (work / "run" / "config.yaml").read_text()
    (work / "run" / "config.yaml").write_text(text)
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 0, done.stderr
    assert "config.yaml was damaged" in done.stdout
    assert "going on from step 3" in done.stdout
    assert (work / "run" / "config.yaml").read_text() == before


def test_a_damaged_config_does_not_hide_other_settings(work: Path) -> None:
    (work / "run" / "config.yaml").write_text("")
    done = start(work / "data.npz", work / "run", "--seed", "1")
    assert done.returncode == 2
    assert "seed 0 -> 1" in done.stderr


def test_without_settings_anywhere_a_damaged_config_is_named(work: Path) -> None:
    (work / "run" / "config.yaml").write_text("")
    for file in (work / "run" / "checkpoints").glob("*/manifest.json"):
        manifest = json.loads(file.read_text())
        del manifest["work"], manifest["sha256"]
        file.write_text(json.dumps(manifest | {"sha256": checkpoint._digest(manifest)}))
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 3
    assert "config.yaml is damaged (it holds no settings)" in done.stderr


def test_a_checkpoint_of_another_run_is_refused(work: Path, tmp_path: Path) -> None:
    done = start(work / "data.npz", tmp_path / "other", "--seed", "1")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(work / "run" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", work / "run" / "checkpoints")
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 2
    assert "seed 1 -> 0" in done.stderr


def other_count(file: Path) -> None:
    arrays(file, 0, count=16)


def other_pixels(file: Path) -> None:
    arrays(file, 1)


def other_labels(file: Path) -> None:
    with np.load(file) as old:
        np.savez(file, images=old["images"], labels=old["labels"][::-1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_count, "24 images -> 16"),
        (other_pixels, "the content of image 0"),
        (other_labels, "labels "),
    ],
)
def test_other_images_under_the_same_name_are_refused(
    work: Path, change: object, sentence: str
) -> None:
    change(work / "data.npz")  # type: ignore[operator]
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 3
    assert f"used other images before ({sentence}" in done.stderr
    done = start(work / "data.npz", work / "run", "--other-images")
    assert done.returncode == 0, done.stderr
    assert "warning: going on with other images" in done.stdout


def test_versions_that_have_changed_are_named(work: Path) -> None:
    file = work / "run" / "checkpoints" / "step-00000003" / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["sha256"]
    manifest["work"]["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(manifest | {"sha256": checkpoint._digest(manifest)}))
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 0, done.stderr
    assert "was trained with torch 1.0 and goes on with" in done.stdout


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "about.json", "bad_images.csv"])
def test_a_folder_in_the_place_of_a_file_is_named(work: Path, name: str) -> None:
    (work / "run" / name).unlink(missing_ok=True)
    (work / "run" / name).mkdir()
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 2
    assert f"{name} is not a file" in done.stderr


@pytest.mark.parametrize("name", ["checkpoints", "encoder"])
def test_a_file_in_the_place_of_a_folder_is_named(work: Path, name: str) -> None:
    shutil.rmtree(work / "run" / name, ignore_errors=True)
    (work / "run" / name).touch()
    done = start(work / "data.npz", work / "run")
    assert done.returncode == 2
    assert f"{name} is a file where the run's folder" in done.stderr


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file/run", "cannot be made"),
        ("file", "exists and is no run folder"),
        ("/proc/nope", "cannot write"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_images_are_opened(
    tmp_path: Path, out: str, words: str
) -> None:
    (tmp_path / "file").touch()
    done = start(tmp_path / "no images", tmp_path / out)
    assert done.returncode == 2
    assert words in done.stderr
    assert "does not exist" not in done.stderr


def test_images_that_vanish_stop_the_run_before_a_checkpoint_counts(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(24)]
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
    done = start(tmp_path / "list.csv", tmp_path / "run", "--views.size", "16", "--log-every", "99")
    assert done.returncode == 3, done.stderr
    assert "cannot be read" in done.stderr
    assert not checkpoint.any_in(tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--keep", "-1"), "--keep must be above 0"),
        (("--epochs", "0", "--steps", "None"), "--epochs must be above 0"),
        (("--steps", "-5"), "--steps must be above 0"),
        (("--batch", "-8"), "--batch must be 0 or more, not -8"),
        (("--micro-batch", "0"), "--micro-batch must be above 0, not 0"),
        (
            ("--views.size", "-5"),
            "--views.size and --views.local.size must be 2 pixels or more, not -5",
        ),
        (("--save-every", "0"), "--save-every must be above 0"),
        (("--workers", "-1"), "--workers must be 0 or more"),
        (("--max-bad", "-0.1"), "--max-bad is a fraction"),
        (("--max-bad", "2"), "--max-bad is a fraction"),
        (("--probe.k", "0"), "--probe.k must be above 0"),
        (("--probe.every", "0"), "--probe.every must be above 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    tmp_path: Path, flags: tuple[str, ...], sentence: str
) -> None:
    data = arrays(tmp_path / "data.npz", 0)
    done = start(data, tmp_path / "run", "--probe.data", str(data), *flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "run" / "encoder").exists()
