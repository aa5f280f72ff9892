"""Folders: what is an image, what is passed over and counted, which folder is the label."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.core.errors import UserError
from selfsup.data.open import open_source
from selfsup.data.python_objects import python_source
from selfsup.data.sources import ArraySource, ImageSource, Source


def image(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (6, 6)).save(out, kind)
    return out.getvalue()


PNG = image()


def put(root: Path, *names: str, data: bytes = PNG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def words(source: Source) -> list[str | None]:
    assert source.labels is not None
    named = [*source.classes, None]
    return [named[i] for i in source.labels.tolist()]


HIDDEN = (
    *(".ipynb_checkpoints", ".git", ".thumbnails", "__MACOSX", "@eaDir", "#recycle"),
    *("$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__", "@Recycle"),
)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("place", ["{}", "cat/{}", "cat/deep/{}/deeper"])
def test_hidden_folders_are_neither_classes_nor_images(
    tmp_path: Path, hidden: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "cat/1.png", "dog/2.png", place.format(hidden) + "/1.png")
    source = open_source(str(tmp_path))
    assert words(source) == ["cat", "dog"]
    assert f"passed over what is hidden ({place.split('{')[0]}{hidden}/)" in capsys.readouterr().err


def test_what_programs_leave_behind_is_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "cat/1.png", "dog/._2.png", "dog/2.png")
    put(tmp_path, "cat/Thumbs.db", "dog/desktop.ini", "dog/.DS_Store", data=b"x")
    assert len(open_source(str(tmp_path))) == 2
    printed = capsys.readouterr().err
    assert "passed over what is hidden (dog/._2.png)" in printed
    assert "other files" not in printed


SUFFIXES = "jpg jpeg jpe jfif jfi jif pjpeg pjp JFIF Jpe png apng bmp dib webp tif tiff gif pnm"


@pytest.mark.parametrize("suffix", SUFFIXES.split())
def test_every_suffix_of_a_format_is_an_image(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, f"a/1.{suffix}", data=image("JPEG"))
    source = open_source(str(tmp_path))
    assert source.pixels(0).shape == (6, 6, 3)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / f"a/1.{suffix}", f"1.{suffix}")
    assert len(open_source(str(tmp_path / "x.tar"))) == 1


def test_files_of_other_suffixes_are_counted_by_suffix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a/1.png", "a/2.heic", "a/3.HEIC", "b/4.avif", "b/5.txt", "b/6")
    assert len(open_source(str(tmp_path))) == 1
    assert (
        "passed over 5 other files (.heic 2, .avif 1, .txt 1, no suffix 1; convert images among "
        "them to PNG)"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("a.zip",), r"holds no images .*; it has \.zip 1; unpack archives$"),
        (("a/1.heic", "a/2.heic"), r"it has \.heic 2; convert images among them to PNG$"),
        (("train/0.tar", "test/0.tar"), r"it has \.tar 2; shards are opened by their own folder$"),
        ((".hidden/1.png",), r"holds no images .*; \.hidden/ is hidden$"),
    ],
)
def test_a_folder_without_images_is_told_what_it_has(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    put(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("suffix", [".zip", ".gz", ".tgz", ".7z"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, f"x{suffix}")
    with pytest.raises(UserError, match=r"unpack it$"):
        open_source(str(tmp_path / f"x{suffix}"))


LISTS = ("00000_stats.json", "nshards.txt", "00000.parquet", "index.csv", "sizes.json", "README.md")


@pytest.mark.parametrize("kind", ["tar", "pack"])
@pytest.mark.parametrize("lists", [LISTS[:1], LISTS[1:3], LISTS])
def test_shards_may_have_lists_beside_them(
    tmp_path: Path, kind: str, lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from selfsup.data.encode import Style
    from selfsup.data.pack_writer import write_pack

    put(tmp_path, "in/1.png")
    (tmp_path / "shards").mkdir()
    if kind == "tar":
        with tarfile.open(tmp_path / "shards/0.tar", "w") as tar:
            tar.add(tmp_path / "in/1.png", "1.png")
    else:
        source = open_source(str(tmp_path / "in"))
        write_pack(source, tmp_path / "shards/0.pack", Style("raw", None, 90))
    put(tmp_path / "shards", *lists, data=b"1")
    for _ in range(2):  # with the index of the shard beside it
        assert len(open_source(str(tmp_path / "shards"))) == 1
    if kind == "tar":
        files = "1 other file" if len(lists) == 1 else f"{len(lists)} other files"
        assert f"shards: passed over {files} (" in capsys.readouterr().err


DATES = ("2024/01/cat/1.png", "2024/02/dog/2.png", "2024/02/cat/3.png")


def test_the_level_of_the_folder_that_is_the_label_is_printed_and_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, *DATES)
    assert words(open_source(str(tmp_path))) == ["2024"] * 3
    assert (
        "labels are the first of up to 3 folders (2024); --labels folder:-1 takes the last "
        "(cat, dog)"
    ) in capsys.readouterr().err
    for level, expected in ((-1, ["cat", "cat", "dog"]), (2, ["01", "02", "02"]), (3, None)):
        actual = words(open_source(str(tmp_path), labels=f"folder:{level}"))
        assert actual == (expected or ["cat", "cat", "dog"])


def test_an_image_without_a_folder_at_the_level_has_no_label(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/c/2.png", "3.png")
    assert words(open_source(str(tmp_path), labels="folder:2")) == [None, None, "c"]
    assert words(open_source(str(tmp_path), labels="folder:-1")) == [None, "a", "c"]
    assert open_source(str(tmp_path), labels="folder:4").labels is None


@pytest.mark.parametrize("labels", ["person", "folder", "folder:0", "folder:x"])
def test_a_folder_has_no_columns(tmp_path: Path, labels: str) -> None:
    put(tmp_path, "a/1.png")
    with pytest.raises(UserError, match=r"no column .*--labels folder:1 takes .* folder:-1 the la"):
        open_source(str(tmp_path), labels=labels)


@pytest.mark.parametrize("name", ["nan", "None", "NA", " null", "1.0", "01"])
def test_a_folder_is_a_class_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/1.png", "zebra/2.png")
    assert words(open_source(str(tmp_path))) == [name, "zebra"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path, "in/a/1.png", "out/2.png")
    (tmp_path / "in/b").symlink_to(tmp_path / "out")
    (tmp_path / "in/a/loop").symlink_to(tmp_path / "in")
    source = open_source(str(tmp_path / "in"))
    assert [source.name(i) for i in range(len(source))] == ["a/1.png", "b/2.png"]


NO_PIXELS = [(2, 0, 8, 3), (2, 8, 0, 3), (2, 0, 0, 3), (2, 0, 8), (2, 8, 0, 1)]


@pytest.mark.parametrize("shape", NO_PIXELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_on_disk_without_height_or_width_are_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros(shape, dtype))
    np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
    for name in ("x.npz", "x.npy"):
        with pytest.raises(UserError, match=r"has images without pixels: their shape is \[2, "):
            open_source(str(tmp_path / name))


@pytest.mark.parametrize("shape", NO_PIXELS)
def test_images_of_a_program_without_height_or_width_are_refused(shape: tuple[int, ...]) -> None:
    colours = np.zeros(shape if len(shape) == 4 else (*shape, 1), np.uint8)
    tensor = torch.from_numpy(colours).permute(0, 3, 1, 2)
    pillow = Image.new("RGB", (shape[2], shape[1]))
    for images in (colours, colours / 255, tensor, tensor / 255, list(colours), [pillow]):
        with pytest.raises(UserError, match=r"pixels|shape|must hold images"):
            python_source(images)


def test_a_source_of_arrays_without_pixels_cannot_be_made() -> None:
    with pytest.raises(UserError, match="without pixels"):
        ArraySource(np.zeros((2, 5, 0, 3), np.uint8), None, [])


def test_an_image_without_pixels_among_others_is_a_bad_image() -> None:
    images = [np.ones((4, 4, 3), np.uint8), np.ones((0, 4, 3), np.uint8)]
    source = ImageSource(images.__getitem__, ["a", "b"], None, [])
    crops = source.crops([0, 1], CropSpec(CenterBoxes(2, 1.0), 4, "bicubic"))
    assert crops.bad == {1: "it has no pixels: its shape is [0, 4, 3]"}
