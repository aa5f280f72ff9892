"""Opening data: what lies on disk becomes images in a fixed order, or a sentence that helps."""

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.core.errors import UserError
from selfsup.data.open import open_source
from selfsup.data.sources import Source


def put(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 6), level).save(path)


def names(source: Source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


def words(source: Source) -> list[str]:
    """The name of each image's class."""
    assert source.labels is not None
    return [source.classes[i] for i in source.labels.tolist()]


def levels(source: Source) -> list[int]:
    crops = source.crops(range(len(source)), CropSpec(CenterBoxes(len(source), 1.0), 6, "bilinear"))
    return [int(x) for x in crops.images[0][:, 0, 0, 0, 0]]


def table(folder: Path, kind: str, rows: list[dict[str, object]]) -> str:
    """A manifest of that kind."""
    path = folder / f"rows.{kind}"
    if kind == "csv":
        lines = [",".join(rows[0])] + [",".join(str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


ROWS: list[dict[str, object]] = [
    {"path": "in/b.png", "label": "dog", "split": "train"},
    {"path": "in/a.png", "label": "cat", "split": "test"},
    {"path": "in/c.png", "label": "ant", "split": "train"},
]
KINDS = pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for level, name in enumerate("abc"):
        put(tmp_path / "in" / f"{name}.png", level * 50)
    return tmp_path


def test_a_folder_is_in_the_order_of_the_bytes_of_its_paths(tmp_path: Path) -> None:
    # "-" < "." < "/" < "Z" < "a" < "é" in bytes, unlike in most languages and unlike by folders
    wanted = ["Z/x.png", "a-b/x.png", "a.b/x.png", "a/Z.png", "a/a.png", "a/b/x.png", "é/x.png"]
    for name in reversed(wanted):
        put(tmp_path / name)
    source = open_source(str(tmp_path))
    assert names(source) == sorted(wanted, key=os.fsencode) == wanted


def test_labels_are_the_first_folders_below_the_root(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "dog/deep/er/3.PNG"):
        put(tmp_path / name)
    source = open_source(str(tmp_path))
    assert list(source.classes) == ["cat", "dog"]
    assert words(source) == ["cat", "dog", "dog"]
    assert names(source) == ["cat/2.png", "dog/1.png", "dog/deep/er/3.PNG"]


def test_an_image_beside_the_folders_has_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "dog" / "1.png")
    put(tmp_path / "2.png")
    source = open_source(str(tmp_path))
    assert names(source) == ["2.png", "dog/1.png"]
    assert source.labels is not None
    assert source.labels.tolist() == [-1, 0]
    assert list(source.classes) == ["dog"]
    assert "1 of 2 images have no label (no folder)" in capsys.readouterr().err


def test_hidden_files_and_other_suffixes_are_no_images(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    (tmp_path / "._1.png").write_bytes(b"of a Mac")
    (tmp_path / "notes.txt").write_text("hello")
    assert names(open_source(str(tmp_path))) == ["1.png"]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="holds no images"):
        open_source(str(tmp_path))


def test_a_missing_folder_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"does not exist \(did you mean 'images'\?\)"):
        open_source(str(tmp_path / "imagse"))
    with pytest.raises(UserError, match=r"does not exist$"):
        open_source(str(tmp_path / "no" / "where"))


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(
        UserError, match=r"^Cannot read .*x.zip: expected a folder or one of \.npz, \.npy, \.csv"
    ):
        open_source(str(tmp_path / "x.zip"))


@KINDS
def test_a_manifest_keeps_its_order_and_its_paths_are_beside_it(three: Path, kind: str) -> None:
    source = open_source(table(three, kind, ROWS))
    assert names(source) == ["in/b.png", "in/a.png", "in/c.png"]
    assert words(source) == ["dog", "cat", "ant"]
    assert list(source.classes) == ["ant", "cat", "dog"]
    assert levels(source) == [50, 0, 100]


@KINDS
def test_a_split_takes_its_rows(three: Path, kind: str) -> None:
    source = open_source(table(three, kind, ROWS), split="train")
    assert names(source) == ["in/b.png", "in/c.png"]
    assert words(source) == ["dog", "ant"]


@KINDS
def test_an_unknown_split_is_told_with_the_known_ones(three: Path, kind: str) -> None:
    with pytest.raises(UserError, match="no rows with split 'val'; it has test, train"):
        open_source(table(three, kind, ROWS), split="val")


@KINDS
def test_a_manifest_without_the_column_path_is_told_with_its_columns(
    three: Path, kind: str
) -> None:
    file = table(three, kind, [{"file": "in/a.png", "label": "cat"}])
    with pytest.raises(UserError, match=r"no column path \(its columns: file, label\)"):
        open_source(file)


@KINDS
def test_a_manifest_without_labels_is_unlabelled(three: Path, kind: str) -> None:
    assert open_source(table(three, kind, [{"path": "in/a.png"}])).labels is None


@KINDS
def test_labels_may_be_numbers(three: Path, kind: str) -> None:
    rows: list[dict[str, object]] = [{"path": "in/a.png", "label": n} for n in (0, 7, 0)]
    assert words(open_source(table(three, kind, rows))) == ["0", "7", "0"]


@pytest.mark.parametrize(("kind", "text"), [("jsonl", "{'path'"), ("parquet", "PAR?")])
def test_a_manifest_that_cannot_be_parsed_is_an_error(tmp_path: Path, kind: str, text: str) -> None:
    (tmp_path / f"x.{kind}").write_text(text)
    with pytest.raises(UserError, match="cannot read"):
        open_source(str(tmp_path / f"x.{kind}"))


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_split_of_what_has_none_is_an_error(three: Path, kind: str) -> None:
    np.savez(three / "x.npz", images=np.zeros((1, 4, 4, 3), np.uint8))
    where = three if kind == "folder" else three / "x.npz"
    with pytest.raises(UserError, match="has no splits"):
        open_source(str(where), split="train")


def test_arrays_with_labels_and_names_are_opened(tmp_path: Path) -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[2, 0, 2], classes=["ant", "bee", "cat"])
    source = open_source(str(tmp_path / "x.npz"))
    assert words(source) == ["cat", "ant", "cat"]
    assert levels(source) == [0, 1, 2]
    np.savez(tmp_path / "y.npz", images=images, labels=[30, 10, 30])
    assert words(open_source(str(tmp_path / "y.npz"))) == ["30", "10", "30"]
    np.savez(tmp_path / "z.npz", images=images[..., 0])  # grey, without the axis of channels
    assert open_source(str(tmp_path / "z.npz")).labels is None
    assert levels(open_source(str(tmp_path / "z.npz"))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, r"uint8.*float32 \[2, 4, 4, 3\]"),
        ({"images": np.zeros((2, 4), np.uint8)}, r"uint8 \[2, 4\]"),
        ({"images": np.zeros((2, 4, 4, 5), np.uint8)}, "1, 3 or 4 channels"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "channels"),
        ({"pixels": np.zeros((2, 4, 4, 3), np.uint8)}, "it has none"),
        (
            {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.arange(3)},
            r"2 images but labels of shape \[3\]",
        ),
    ],
)
def test_arrays_of_another_form_are_told_with_their_form(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path / "x.npz"))


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_arrays_are_refused_and_nothing_in_them_runs(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "x.npz", images=np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    (tmp_path / "y.npz").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("x.npz", "y.npz"):
        with pytest.raises(UserError, match="cannot read"):
            open_source(str(tmp_path / name))
    assert not sprung.exists()


def mnist(root: Path, part: str, images: np.ndarray, labels: list[int]) -> None:
    """The two files of MNIST's format, as its authors describe it."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIII", 2051, *images.shape)
    (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">II", 2049, len(labels))
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


def test_a_torchvision_data_set_on_disk_is_opened_by_its_split(tmp_path: Path) -> None:
    grey = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    mnist(tmp_path, "train", grey, [3, 1, 3])
    mnist(tmp_path, "t10k", grey[:2] + 100, [0, 9])
    train = open_source(f"torchvision:MNIST:{tmp_path}", split="train")
    assert words(train) == ["3 - three", "1 - one", "3 - three"]
    assert levels(train) == [0, 1, 2]
    assert levels(open_source(f"torchvision:MNIST:{tmp_path}")) == [0, 1, 2]
    test = open_source(f"torchvision:MNIST:{tmp_path}", split="test")
    assert levels(test) == [100, 101]
    assert words(test) == ["0 - zero", "9 - nine"]


@pytest.mark.parametrize(
    ("data", "split", "message"),
    [
        ("torchvision:MNITS:.", "", "no data set 'MNITS' .did you mean 'MNIST'"),
        ("torchvision:CIFAR10:{}", "", "CIFAR10 is not in"),
        ("torchvision:MNIST:{}", "val", "splits train and test, not 'val'"),
        ("torchvision:FakeData:{}", "", "no train and test split"),
    ],
)
def test_a_torchvision_data_set_that_cannot_be_opened_is_told_why(
    tmp_path: Path, data: str, split: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_source(data.format(tmp_path), split=split)
