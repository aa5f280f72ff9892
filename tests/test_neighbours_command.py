"""The picture of queries and their neighbours, and what is said to wrong input."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from launch import called
from pictures import folder
from PIL import Image

GREEN, RED = (0x1A, 0x7F, 0x37), (0xC0, 0x1C, 0x28)


@pytest.fixture(autouse=True, scope="module")
def _read_in_process() -> Iterator[None]:
    """Few images are read at once, without the seconds that reader processes take to start."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("selfsup.data.loader", "selfsup.evaluate.features"):
            patch.setattr(f"{place}.default_workers", lambda **where: 0)
        yield


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six grey images: three dark ones of one class, three bright ones of another; and a mixed
    class in which a dark and a bright one share a label."""
    file = tmp_path_factory.mktemp("levels") / "levels.npz"
    values = np.array([10, 12, 14, 200, 203, 206, 12, 203])
    images = np.broadcast_to(values[:, None, None, None], (8, 16, 16, 3)).astype(np.uint8)
    np.savez(file, images=images, labels=np.array([0, 0, 0, 1, 1, 1, 2, 2]))
    return file


def frames(file: Path, colour: tuple[int, int, int]) -> int:
    """Pixels of one colour, which frames and crosses have."""
    return int((np.asarray(Image.open(file)) == colour).all(2).sum())


def test_frames_are_green_for_the_class_of_the_query_and_red_for_others(
    levels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "n.png"
    flags = ("pixels", "--data", levels, "--size", "8", "--side", "16", "--out", out)
    done = called("tools/neighbours.py", *flags, "-k", "7", "--queries", "1", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert "MAP@R" in done.stdout
    frame = (16 + 6) ** 2 - 16**2
    right, wrong = frames(out, GREEN) / frame, frames(out, RED) / frame
    assert right in (1, 2)  # the others of the query's class
    assert wrong >= 7 - right  # frames, and a cross in each


def test_several_models_stand_side_by_side_and_have_their_names(
    levels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "n.png"
    flags = ("pixels", "colours", "--data", levels, "--out", out, "--names", "one", "two")
    done = called("tools/neighbours.py", *flags, "-k", "2", "--queries", "3", "--size", "8")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["one", "two"]
    with Image.open(out) as image:
        width, height = image.size
    step = 64 + 2 * 3 + 4
    assert width == 4 + step + 22 + 2 * (2 * step + 22) - 22
    assert height == 42 + 3 * step + 4


def test_images_without_labels_have_no_frames_and_no_figure(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=images)
    out = tmp_path / "n.png"
    flags = ("pixels", "--data", tmp_path / "plain.npz", "--size", "8", "--out", out)
    done = called("tools/neighbours.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "MAP@R" not in done.stdout
    assert frames(out, GREEN) == frames(out, RED) == 0


def test_queries_follow_from_the_seed_and_are_of_different_classes(
    levels: Path, tmp_path: Path
) -> None:
    from tools.neighbours import Config, _draw_queries, _images

    for seed in range(5):
        config = Config(models=("pixels",), data=str(levels), queries=9, seed=seed)
        source = _images(config)
        assert source.labels is not None
        queries = _draw_queries(source, config)
        assert queries == _draw_queries(source, config)
        assert sorted(source.labels[queries].tolist()) == [0, 1, 2]


WRONG = {
    "names": (("--names", "a", "b"), "1 models and 2 --names: give one for each"),
    "queries": (("--queries", "0"), "--queries 0 and --k 4 must be above 0"),
    "side": (("--side", "3"), "--side 3 at least 16"),
    "kind": (("--out", "picture.nothing"), "cannot write the picture picture.nothing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_of_a_picture_end_with_one_sentence(levels: Path, name: str) -> None:
    flags, sentence = WRONG[name]
    done = called("tools/neighbours.py", "pixels", "--data", levels, "--size", "8", *flags)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_an_image_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", classes=2, each=3)
    (data / "class0" / "0.png").write_bytes(b"broken")
    done = called("tools/neighbours.py", "pixels", "--data", data, "--out", tmp_path / "n.png")
    assert done.returncode == 2
    assert "1 image of" in done.stderr
    assert "selfsup audit names them" in done.stderr


@pytest.mark.slow
def test_the_picture_of_the_readme_is_made_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfsup.data import demo_drawings

    monkeypatch.setattr(demo_drawings, "TRAIN_CLOTHS", 12)
    monkeypatch.setattr(demo_drawings, "TEST_CLOTHS", 4)
    monkeypatch.setattr("selfsup.tools.pictures.SIDE", 32)
    picture, views = tmp_path / "neighbours.png", tmp_path / "views.png"
    pictures = ("--picture", picture, "--views", views)
    flags = ("--out", tmp_path / "runs", *pictures, "--steps", "2")
    done = called("tools/pictures.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "pretrained, no labels   MAP@R" in done.stdout
    assert picture.stat().st_size > 1000
    with Image.open(views) as drawn:
        assert len(drawn.getcolors(1 << 20) or []) > 1000
