"""Other kinds of sources: mapped arrays, shards, data sets of other libraries, and mixtures."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.config import ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.loader import read_ahead
from selfsup.data.open import open_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import Source
from selfsup.training.pretrain import local_batches


def levels(source: Source, positions: list[int] | None = None) -> list[int]:
    """The first value of each image."""
    asked = list(range(len(source))) if positions is None else positions
    crops = source.crops(asked, CropSpec(CenterBoxes(len(asked), 1.0), 6, "bilinear"))
    return crops.images[0][:, 0, 0, 0, 0].tolist()


def words(source: Source) -> list[str]:
    assert source.labels is not None
    return [source.classes[i] for i in source.labels.tolist()]


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (6, 6), (level,) * 3).save(out, "PNG")
    return out.getvalue()


def grey(values: list[int], channels: int = 3) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8), 36 * channels).reshape(-1, 6, 6, channels)


# arrays


def test_an_npy_is_mapped_and_its_labels_lie_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", grey([10, 20, 30]))
    source = open_source(str(tmp_path / "x.npy"))
    assert levels(source) == [10, 20, 30]
    assert source.labels is None
    np.save(tmp_path / "x.labels.npy", np.array([7, 5, 7]))
    source = open_source(str(tmp_path / "x.npy"))
    assert words(source) == ["7", "5", "7"]
    assert isinstance(source.images, np.memmap)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_of_16_bits_are_scaled_by_their_range(tmp_path: Path, kind: str) -> None:
    values = np.array([0, 257 * 7, 65535], np.uint16).repeat(36).reshape(3, 6, 6, 1)
    file = tmp_path / f"x.{kind}"
    np.save(file, values) if kind == "npy" else np.savez(file, images=values)
    assert levels(open_source(str(file))) == [0, 7, 255]


def test_arrays_of_five_channels_are_read_as_five(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", grey([10, 20], 5))
    source = open_source(str(tmp_path / "x.npy"), channels=5)
    crops = source.crops([1], CropSpec(CenterBoxes(1, 1.0), 4, "bicubic"))
    assert crops.images[0].shape == (1, 1, 5, 4, 4)
    with pytest.raises(UserError, match="1, 3 or 4 channels, not"):
        open_source(str(tmp_path / "x.npy"))
    with pytest.raises(UserError, match=r"of 2 channels \(--views.mean\), not"):
        open_source(str(tmp_path / "x.npy"), channels=2)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 3), (4, 4)])
def test_files_are_read_as_grey_colour_or_with_alpha(
    tmp_path: Path, channels: int, expected: int
) -> None:
    Image.new("RGBA", (6, 6), (200, 100, 0, 128)).save(tmp_path / "a.png")
    source = open_source(str(tmp_path), channels=channels)
    crops = source.crops([0], CropSpec(CenterBoxes(1, 1.0), 6, "bilinear")).images[0]
    assert crops.shape[2] == expected
    if channels == 4:
        assert crops[0, 0, :, 0, 0].tolist() == [200, 100, 0, 128]
    with pytest.raises(UserError, match="other images come from arrays"):
        open_source(str(tmp_path), channels=5)


# manifests


def test_a_manifest_keeps_all_its_columns_and_labels_may_be_any(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    table = "path,label,camera,person\na.png,x,1,ann\nb.png,y,2,bob\n"
    (tmp_path / "all.csv").write_text(table)
    source = open_source(str(tmp_path / "all.csv"))
    assert words(source) == ["x", "y"]
    assert source.columns == {"camera": ["1", "2"], "person": ["ann", "bob"]}
    source = open_source(str(tmp_path / "all.csv"), labels="person")
    assert words(source) == ["ann", "bob"]
    assert source.columns["label"] == ["x", "y"]
    with pytest.raises(UserError, match="no column 'persn'; it has path, label, camera, person"):
        open_source(str(tmp_path / "all.csv"), labels="persn")


# shards


def shard(file: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def samples(values: list[int], start: int = 0) -> list[tuple[str, bytes]]:
    """As webdataset writes them: the files of a sample one after the other."""
    return [
        member
        for i, value in enumerate(values, start)
        for member in (
            (f"{i:04}.cls", str(value % 3).encode()),
            (f"{i:04}.png", png(value)),
            (f"{i:04}.json", json.dumps({"camera": value // 10}).encode()),
        )
    ]


def test_shards_are_one_source_in_the_order_of_their_names(tmp_path: Path) -> None:
    shard(tmp_path / "b.tar", samples([40, 50], 3))
    shard(tmp_path / "a.tar", samples([10, 20, 30]))
    source = open_source(str(tmp_path))
    assert levels(source) == [10, 20, 30, 40, 50]
    assert levels(source, [4, 0, 3]) == [50, 10, 40]
    assert words(source) == ["1", "2", "0", "1", "2"]
    assert source.columns == {"camera": ["1", "2", "3", "4", "5"]}
    assert source.name(3) == "0003.png"
    assert levels(open_source(str(tmp_path / "b.tar"))) == [40, 50]


def test_the_index_of_a_shard_is_kept_and_made_anew_when_the_shard_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    shard(file, samples([10, 20]))
    open_source(str(file))
    index = tmp_path / "a.tar.index.json"
    before = index.read_text()
    open_source(str(file))
    assert index.read_text() == before
    shard(file, samples([60, 70, 80]))
    assert levels(open_source(str(file))) == [60, 70, 80]
    index.write_text("{")  # half written by something else
    assert levels(open_source(str(file))) == [60, 70, 80]


def test_a_broken_shard_and_an_empty_one_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"cannot read .*x\.tar"):
        open_source(str(tmp_path / "x.tar"))
    shard(tmp_path / "y.tar", [("a.txt", b"x")])
    with pytest.raises(UserError, match="holds no images"):
        open_source(str(tmp_path / "y.tar"))


def test_a_shard_of_images_without_labels_has_none(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", [("in/a.png", png(3)), ("in/b.png", png(4))])
    source = open_source(str(tmp_path / "x.tar"))
    assert source.labels is None
    assert levels(source) == [3, 4]


# data sets of other libraries


def hugging_face(folder: Path, values: list[int]) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "camera": datasets.Value("string"),
        }
    )
    rows = {
        "image": [Image.new("RGB", (6, 6), (value,) * 3) for value in values],
        "label": [value % 2 for value in values],
        "camera": [str(value) for value in values],
    }
    table = datasets.Dataset.from_dict(rows, features=features)
    split = {"train": table, "test": table.select([0])}
    datasets.DatasetDict(split).save_to_disk(str(folder))


def test_a_hugging_face_data_set_on_disk_is_opened_by_its_split(tmp_path: Path) -> None:
    hugging_face(tmp_path / "set", [5, 8, 11])
    source = open_source(str(tmp_path / "set"), split="train")
    assert levels(source) == [5, 8, 11]
    assert words(source) == ["dog", "cat", "dog"]
    assert source.columns == {"camera": ["5", "8", "11"]}
    assert len(open_source(str(tmp_path / "set"), split="test")) == 1
    assert words(open_source(str(tmp_path / "set"), split="train", labels="camera"))[1] == "8"
    with pytest.raises(UserError, match="has the splits train, test, not 'val'; give --split"):
        open_source(str(tmp_path / "set"), split="val")
    with pytest.raises(UserError, match="no column 'person'"):
        open_source(str(tmp_path / "set"), split="train", labels="person")


# mixtures


@pytest.fixture
def three_kinds(tmp_path: Path) -> str:
    np.savez(tmp_path / "a.npz", images=grey([10, 20]), labels=np.array(["cat", "dog"]))
    shard(tmp_path / "b.tar", [("x.png", png(30)), ("x.cls", b"ant")])
    (tmp_path / "c" / "dog").mkdir(parents=True)
    (tmp_path / "c" / "dog" / "1.png").write_bytes(png(40))
    (tmp_path / "c" / "dog" / "2.png").write_bytes(b"broken")
    return " + ".join(str(tmp_path / name) for name in ("a.npz", "b.tar", "c"))


def test_a_mixture_has_the_images_of_all_in_the_order_asked_for(three_kinds: str) -> None:
    source = open_source(three_kinds)
    assert len(source) == 5
    assert words(source) == ["cat", "dog", "ant", "dog", "dog"]
    assert levels(source, [3, 0, 2, 1, 3]) == [40, 10, 30, 20, 40]
    crops = source.crops([4, 1], CropSpec(CenterBoxes(2, 1.0), 6, "bilinear"))
    assert list(crops.bad) == [4]
    assert crops.images[0][:, 0, 0, 0, 0].tolist() == [40, 20]
    assert [source.name(i) for i in (1, 2, 4)] == ["image 1", "x.png", "dog/2.png"]
    assert source.pixels(2)[0, 0, 0] == 30
    assert source.stored(2) == png(30)


def test_the_views_of_a_mixture_are_those_that_each_image_has_alone(tmp_path: Path) -> None:
    """Boxes go with their images, however a batch is divided among sources."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "all.npz", images=noise)
    np.savez(tmp_path / "a.npz", images=noise[:3])
    np.savez(tmp_path / "b.npz", images=noise[3:])
    whole = open_source(str(tmp_path / "all.npz"))
    mixed = open_source(f"{tmp_path}/a.npz + {tmp_path}/b.npz")
    batches = [
        local_batches(source, ShuffleSampler(8, batch=8, seed=0), ViewsConfig(size=8), 0)[0]
        for source in (whole, mixed)
    ]
    assert torch.equal(batches[0].crops[0], batches[1].crops[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.npz * 2 + b.npz", "gives a weight to some and not to all"),
        ("a.npz * x + b.npz * 1", "a number above 0, not 'x'"),
        ("a.npz * 0 + b.npz * 1", "a number above 0, not '0'"),
        ("a.npz + nowhere.npz", "does not exist"),
    ],
)
def test_a_mixture_that_cannot_be_made_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        np.savez(f"{name}.npz", images=grey([1]))
    with pytest.raises(UserError, match=message):
        open_source(data)


def test_a_folder_whose_name_has_a_plus_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a + b").mkdir()
    (tmp_path / "a + b" / "x.png").write_bytes(png(9))
    assert levels(open_source(str(tmp_path / "a + b"))) == [9]


@pytest.mark.parametrize("kind", ["folder", "tar", "npy", "pack"])
def test_sources_can_be_sent_to_other_processes(tmp_path: Path, kind: str) -> None:
    from selfsup.data.encode import Style
    from selfsup.data.pack_writer import write_pack

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(3))
    shard(tmp_path / "x.tar", [("a.png", png(3))])
    np.save(tmp_path / "x.npy", grey([3]))
    write_pack(open_source(str(tmp_path / "in")), tmp_path / "x.pack", Style("jpeg", None, 90))
    path = tmp_path / ("in" if kind == "folder" else f"x.{kind}")
    sent = pickle.loads(pickle.dumps(open_source(str(path))))
    assert levels(sent) == [3]


@pytest.mark.slow
def test_worker_processes_read_shards_as_the_main_one_does(tmp_path: Path) -> None:
    values = list(range(0, 240, 10))
    shard(tmp_path / "x.tar", samples(values))
    source = open_source(str(tmp_path / "x.tar"))
    batches = local_batches(source, ShuffleSampler(24, batch=8, seed=0), ViewsConfig(size=8), 0)

    def seen(workers: int) -> list[Tensor]:
        return [batch.crops[0] for batch in read_ahead(batches, range(6), workers=workers)]

    levels(source)  # opens the file here, before workers are forked
    for in_process, by_workers in zip(seen(0), seen(2), strict=True):
        assert torch.equal(in_process, by_workers)


def test_a_mask_beside_an_image_is_not_the_image(tmp_path: Path) -> None:
    members = [
        ("1.jpg.png", png(9)),
        ("1.png", png(5)),
        ("1.mask.png", png(200)),
        ("2.a.png", png(7)),
    ]
    shard(tmp_path / "x.tar", members)
    source = open_source(str(tmp_path / "x.tar"))
    assert [source.name(i) for i in range(2)] == ["1.png", "2.a.png"]
    assert levels(source) == [5, 7]


def test_a_shard_that_is_gone_has_bad_images(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", samples([10, 20]))
    source = open_source(str(tmp_path / "x.tar"))
    (tmp_path / "x.tar").unlink()
    crops = source.crops([0], CropSpec(CenterBoxes(1, 1.0), 6, "bilinear"))
    assert "No such file" in crops.bad[0]


def test_labels_of_shards_may_be_another_column(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", samples([10, 20]))
    assert words(open_source(str(tmp_path / "x.tar"), labels="camera")) == ["1", "2"]
    with pytest.raises(UserError, match="no column 'person'; it has camera"):
        open_source(str(tmp_path / "x.tar"), labels="person")


@pytest.mark.parametrize("stray", ["backup.tar", "old.pack"])
def test_a_stray_shard_does_not_hide_a_folder_of_images(tmp_path: Path, stray: str) -> None:
    (tmp_path / "a.png").write_bytes(png(3))
    (tmp_path / stray).write_bytes(b"x")
    assert levels(open_source(str(tmp_path))) == [3]


def test_labels_that_are_missing_are_no_class(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    images = [Image.new("RGB", (6, 6)) for _ in range(2)]
    table = datasets.Dataset.from_dict({"image": images, "label": [1, -1]}, features=features)
    table.save_to_disk(str(tmp_path / "set"))
    source = open_source(str(tmp_path / "set"))
    assert source.labels is not None
    assert source.labels.tolist() == [0, -1]
    assert list(source.classes) == ["dog"]


def test_a_label_without_a_name_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=grey([1, 2]), labels=[0, 7], classes=["a", "b"])
    with pytest.raises(UserError, match=r"x\.npz names 2 classes and has label 7"):
        open_source(str(tmp_path / "x.npz"))


def test_an_npz_called_npy_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=grey([1, 2]))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(UserError, match="it holds several arrays"):
        open_source(str(tmp_path / "x.npy"))


def test_many_parts_of_a_mixture_are_not_one_long_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=grey([1]))
    assert len(open_source(" + ".join([str(tmp_path / "a.npz")] * 300))) == 300
