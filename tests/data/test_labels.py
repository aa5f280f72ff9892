"""Labels: one rule in every source, and one sentence for what is no label."""

import io
import json
import tarfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from selfsup.core.errors import UserError
from selfsup.data.encode import Style
from selfsup.data.labels import class_name, encode_class_numbers
from selfsup.data.open import open_source
from selfsup.data.pack_writer import write_pack
from selfsup.data.python_objects import python_source
from selfsup.data.sources import Source
from selfsup.data.subset import labelled_images, require_classes

NAN = float("nan")
pd: Any = pytest.importorskip("pandas")


def pixels(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)


def files(folder: Path, n: int) -> list[str]:
    """Image files and their names."""
    for i in range(n):
        Image.fromarray(pixels(n)[i]).save(folder / f"{i}.png")
    return [f"{i}.png" for i in range(n)]


def npz(folder: Path, labels: list[Any]) -> Source:
    np.savez(folder / "x.npz", images=pixels(len(labels)), labels=np.asarray(labels))
    return open_source(str(folder / "x.npz"))


def npy(folder: Path, labels: list[Any]) -> Source:
    np.save(folder / "x.npy", pixels(len(labels)))
    np.save(folder / "x.labels.npy", np.asarray(labels))
    return open_source(str(folder / "x.npy"))


def csv(folder: Path, labels: list[Any]) -> Source:
    table = pd.DataFrame({"path": files(folder, len(labels)), "label": labels})
    table.to_csv(folder / "x.csv", index=False)
    return open_source(str(folder / "x.csv"))


def jsonl(folder: Path, labels: list[Any]) -> Source:
    rows = zip(files(folder, len(labels)), labels, strict=True)
    lines = [json.dumps({"path": path, "label": label}) for path, label in rows]
    (folder / "x.jsonl").write_text("\n".join(lines))
    return open_source(str(folder / "x.jsonl"))


def parquet(folder: Path, labels: list[Any]) -> Source:
    table = pa.table({"path": files(folder, len(labels)), "label": pa.array(labels)})
    pyarrow.parquet.write_table(table, folder / "x.parquet")
    return open_source(str(folder / "x.parquet"))


def hugging_face(folder: Path, labels: list[Any]) -> Source:
    import datasets

    datasets.disable_progress_bars()
    rows = {"image": [Image.fromarray(x) for x in pixels(len(labels))], "label": labels}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "x"))
    return open_source(str(folder / "x"))


def put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def tar_json(folder: Path, labels: list[Any]) -> Source:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i, name in enumerate(files(folder, len(labels))):
            put(tar, name, (folder / name).read_bytes())
            put(tar, f"{i}.json", json.dumps({"label": labels[i]}).encode())
    return open_source(str(folder / "x.tar"))


def python_list(folder: Path, labels: list[Any]) -> Source:
    return python_source(list(pixels(len(labels))), labels)


def python_pairs(folder: Path, labels: list[Any]) -> Source:
    return python_source(list(zip(pixels(len(labels)), labels, strict=True)))


def pack_of(folder: Path, labels: list[Any]) -> Source:
    write_pack(jsonl(folder, labels), folder / "x.pack", Style("raw", None, 90))
    return open_source(str(folder / "x.pack"))


Opener = Callable[[Path, list[Any]], Source]
NUMPY: list[Opener] = [npz, npy]
TYPED: list[Opener] = [csv, parquet, hugging_face]
FREE: list[Opener] = [jsonl, tar_json, python_list, python_pairs, pack_of]
MISSING: list[tuple[list[Opener], list[Any]]] = [
    (NUMPY + TYPED + FREE, [0.0, NAN, 1.0, NAN]),
    (TYPED + FREE, [0, None, 1, None]),
    (NUMPY + TYPED + FREE, ["0", "", "1", "  "]),
    (NUMPY + TYPED + FREE, ["0", "nan", "1", "null"]),
    (TYPED + FREE, ["0", None, "1", "NA"]),
    (FREE, [0, None, "1", NAN]),
    (FREE, [0.0, "", 1, " "]),
    ([python_list, python_pairs], [0, pd.NA, 1, pd.NaT]),
    ([python_list, python_pairs], [np.int8(0), np.float16("nan"), np.str_("1"), None]),
    ([python_list, python_pairs], [torch.tensor(0), torch.tensor(NAN), torch.tensor([1]), b""]),
]


@pytest.mark.parametrize(
    ("source", "labels"),
    [pytest.param(s, labels, id=f"{s.__name__}-{labels}") for k, labels in MISSING for s in k],
)
def test_an_image_whose_label_is_missing_has_none_in_every_source(
    tmp_path: Path, source: Opener, labels: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    opened = source(tmp_path, labels)
    assert list(opened.classes) == ["0", "1"]
    assert opened.labels is not None
    assert opened.labels.tolist() == [0, -1, 1, -1]
    if source not in (python_list, python_pairs):  # these have one name, and are printed once
        assert "2 of 4 images have no label" in capsys.readouterr().err


@pytest.mark.parametrize("source", NUMPY + TYPED + FREE)
def test_without_any_label_a_source_has_no_labels(tmp_path: Path, source: Opener) -> None:
    opened = source(tmp_path, [NAN, NAN])
    assert opened.labels is None
    assert list(opened.classes) == []


SAME: list[tuple[list[Opener], list[Any], list[str]]] = [
    (NUMPY + TYPED + FREE, [3.0, 7.0, 3.0], ["3", "7", "3"]),
    (NUMPY + TYPED + FREE, ["3.0", "7", "3"], ["3", "7", "3"]),
    (NUMPY + TYPED + FREE, [" cat", "dog", "cat "], ["cat", "dog", "cat"]),
    ([*NUMPY, parquet, python_list, python_pairs], [b"cat", b"dog", b"cat"], ["cat", "dog", "cat"]),
    (FREE, [1, 1.0, "1"], ["1", "1", "1"]),
    (FREE, [[1], [2], [1]], ["1", "2", "1"]),
    ([python_list], [b"cat", "cat", np.str_("cat")], ["cat", "cat", "cat"]),
    ([python_list], [Decimal(2), np.uint8(2), torch.tensor(2.0)], ["2", "2", "2"]),
    (NUMPY + TYPED + FREE, [True, False, True], ["True", "False", "True"]),
    (NUMPY + TYPED + FREE, ["01", "1", "1.5"], ["01", "1", "1.5"]),
]


@pytest.mark.parametrize(
    ("source", "labels", "words"),
    [pytest.param(s, x, words, id=f"{s.__name__}-{x}") for k, x, words in SAME for s in k],
)
def test_one_class_has_one_name_in_every_source(
    tmp_path: Path, source: Opener, labels: list[Any], words: list[str]
) -> None:
    opened = source(tmp_path, labels)
    assert opened.labels is not None
    assert [opened.classes[i] for i in opened.labels.tolist()] == words


NONE_AT_ALL: list[tuple[list[Opener], Any, str]] = [
    ([*NUMPY, parquet, hugging_face, *FREE], [0.5, 1.0], "not float64 like 0.5"),
    ([*NUMPY, parquet, hugging_face, *FREE], [1.0, float("inf")], "not float64 like inf"),
    ([parquet, hugging_face, *FREE], [[0, 1], [1, 1]], r"not a list like \[0, 1\]; give each"),
    ([parquet, hugging_face, *FREE], [[0, 1], [1]], r"not a list like \[0, 1\]; give each"),
    ([parquet, hugging_face, *FREE], [[], [1]], r"not a list like \[\]"),
    (NUMPY, [[0, 1], [1, 0]], r"not int64 \[2, 2\]; give each image one label .* argmax"),
    ([python_list], np.eye(2), r"not float64 \[2, 2\]"),
    ([python_list], torch.eye(2), r"not float64 \[2, 2\]"),
    ([jsonl, tar_json, parquet, hugging_face], [{"a": 1}, {"a": 2}], "not a dict like {'a': 1}"),
    ([python_list], [1j, 2j], "not a complex"),
    ([python_list], ["cat", {"cat"}], "not a set"),
]


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [pytest.param(s, x, m, id=f"{s.__name__}-{x}") for k, x, m in NONE_AT_ALL for s in k],
)
def test_what_is_neither_a_whole_number_nor_a_word_is_one_sentence(
    tmp_path: Path, source: Opener, labels: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        source(tmp_path, labels)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("labels", [5, "cat"])
def test_one_label_for_all_images_is_one_sentence(labels: Any) -> None:
    with pytest.raises(UserError, match="for all"):
        python_source(list(pixels(2)), labels)


def test_series_of_pandas_and_arrays_of_arrow_are_labels() -> None:
    words = ["dog", None, "cat"]
    for labels in (pd.Series(words), pd.Series(words, dtype="category"), pa.array(words)):
        source = python_source(list(pixels(3)), labels)
        assert source.labels is not None
        assert source.labels.tolist() == [1, -1, 0]
    masked = np.ma.array([4, 5, 4], mask=[False, True, False])
    assert encode_class_numbers("x", masked)[1] == ["4"]
    assert encode_class_numbers("x", pd.Series([7, 9, None], dtype="Int8"))[1] == ["7", "9"]


NAMES = ["cat", "dog"]
NAMED: list[tuple[Any, list[str | None]]] = [
    ([0.0, 1.0], ["cat", "dog"]),
    ([1.0, NAN], ["dog", None]),
    (["dog", "cat"], ["dog", "cat"]),
    ([b"dog", b"cat"], ["dog", "cat"]),
    ([True, False], ["dog", "cat"]),
    (["1", "0"], ["dog", "cat"]),
    ([-1, 1], [None, "dog"]),
    (np.array([[1], [0]]), ["dog", "cat"]),
    (np.array([1, 0], np.uint64), ["dog", "cat"]),
]


@pytest.mark.parametrize(("labels", "words"), NAMED)
def test_labels_beside_names_of_classes_are_numbers_or_names(
    tmp_path: Path, labels: Any, words: list[str | None]
) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(2), labels=np.asarray(labels), classes=NAMES)
    source = open_source(str(tmp_path / "x.npz"))
    assert source.labels is not None
    named = [*source.classes, None]
    assert [named[i] for i in source.labels.tolist()] == words


@pytest.mark.parametrize("label", [2, -2, "bird", 2.0])
def test_a_label_that_no_class_has_is_told(tmp_path: Path, label: Any) -> None:
    labels = np.asarray([label, label])
    np.savez(tmp_path / "x.npz", images=pixels(2), labels=labels, classes=NAMES)
    with pytest.raises(UserError, match=f"names 2 classes and has label {class_name(label)}$"):
        open_source(str(tmp_path / "x.npz"))


def test_two_classes_of_one_name_stay_two() -> None:
    numbers, classes = encode_class_numbers("x", [0, 2, 1, 0], ["crane", "dog", "crane"])
    assert classes == ["crane (0)", "dog", "crane (2)"]
    assert numbers is not None
    assert numbers.tolist() == [0, 2, 1, 0]


def test_images_without_label_are_left_out_with_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = csv(tmp_path, ["a", None, "b", "a", None])
    labelled = labelled_images(source, "x.csv of this test")
    assert [labelled.name(i) for i in range(len(labelled))] == ["0.png", "2.png", "3.png"]
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [0, 1, 0]
    assert "x.csv of this test: left out 2 of 5 images without label" in capsys.readouterr().err
    assert labelled_images(labelled, "x") is labelled


def test_a_table_without_the_usual_column_is_told_which_to_name(tmp_path: Path) -> None:
    files(tmp_path, 2)
    (tmp_path / "x.csv").write_text("path,camera,class\n0.png,1,cat\n1.png,2,dog\n")
    source = open_source(str(tmp_path / "x.csv"))
    with pytest.raises(UserError, match=r"its columns \(camera, class\) as in --labels class$"):
        labelled_images(source, "x.csv")


def test_one_class_and_classes_of_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"all labels are the same \('a'\), and two .*folder:-1 takes"
    ):
        require_classes(csv(tmp_path, ["a", "a"]), "x.csv", repeated=False)
    single = csv(tmp_path, ["a", "b", "c"])
    require_classes(single, "x.csv", repeated=False)
    with pytest.raises(UserError, match=r"each of the 3 classes of x\.csv has one image"):
        require_classes(single, "x.csv", repeated=True)


def test_a_mixture_of_labelled_and_unlabelled_images_keeps_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(2), labels=["x", "y"])
    np.savez(tmp_path / "b.npz", images=pixels(1))
    source = open_source(f"{tmp_path}/b.npz + {tmp_path}/a.npz")
    assert source.labels is not None
    assert source.labels.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("source", [*NUMPY, *TYPED, jsonl, tar_json, pack_of])
def test_labels_that_are_not_wanted_are_not_read(tmp_path: Path, source: Opener) -> None:
    source(tmp_path, ["a", "b"])
    name = {"npz": "x.npz", "npy": "x.npy", "hugging_face": "x", "pack_of": "x.pack"}.get(
        source.__name__, "x." + source.__name__.split("_")[0].removesuffix("_json")
    )
    opened = open_source(str(tmp_path / name), labels="")
    assert opened.labels is None
    assert list(opened.classes) == []
    assert len(opened) == 2


def test_several_labels_of_an_image_do_not_stop_pretraining_without_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pretrain without labels: --labels ''"):
        parquet(tmp_path, [[0, 1], [1]])
    assert open_source(str(tmp_path / "x.parquet"), labels="").labels is None


def test_labels_of_arrays_may_be_another_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(2), labels=[0, 1], person=["ann", "bob"])
    assert open_source(str(tmp_path / "x.npz"), labels="person").classes == ["ann", "bob"]
    with pytest.raises(UserError, match="no column 'camera'; it has person"):
        open_source(str(tmp_path / "x.npz"), labels="camera")
    np.save(tmp_path / "x.npy", pixels(2))
    with pytest.raises(UserError, match=r"no column 'camera'; its labels are in x\.labels\.npy"):
        open_source(str(tmp_path / "x.npy"), labels="camera")
