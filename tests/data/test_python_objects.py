"""What a Python program holds as a source: read by position, checked at once, in one sentence."""

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.config import ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.audit import audit
from selfsup.data.loader import read_ahead
from selfsup.data.python_objects import python_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import Source
from selfsup.training.pretrain import local_batches


def levels(source: Source) -> list[int]:
    """The first value of each image."""
    crops = source.crops(range(len(source)), CropSpec(CenterBoxes(len(source), 1.0), 6, "bilinear"))
    assert crops.bad == {}
    return crops.images[0][:, 0, 0, 0, 0].tolist()


def grey(level: int, side: int = 6) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


class Pairs(Dataset[tuple[Any, Any]]):
    """(image, label), each image of its own size."""

    def __init__(self, n: int = 24) -> None:
        self.n = n
        self.reads = 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        self.reads += 1
        return Image.fromarray(grey(10 * i, 6 + i)), ["cat", "dog", "ant"][i % 3]


class Random(Pairs):
    """With an augmentation of its own."""

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return np.random.randint(0, 256, (6, 6, 3)).astype(np.uint8), 0


class Stream(IterableDataset[Any]):
    """Read from its beginning only."""

    def __iter__(self) -> Iterator[Any]:
        yield grey(0)


IMAGES: dict[str, Any] = {
    "PIL": Image.fromarray(grey(51)),
    "PIL, grey": Image.fromarray(grey(51)[..., 0]),
    "PIL, a palette": Image.fromarray(grey(51)).convert("P"),
    "array": grey(51),
    "array, grey": grey(51)[..., 0],
    "array with alpha": np.dstack([grey(51), grey(9)[..., :1]]),
    "array of floats": grey(51) / np.float32(255),
    "tensor": torch.from_numpy(grey(51)).permute(2, 0, 1),
    "tensor of floats": torch.from_numpy(grey(51)).permute(2, 0, 1) / 255,
    "tensor, grey": torch.full((1, 6, 6), 51, dtype=torch.uint8),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_of_any_kind_has_its_levels(kind: str) -> None:
    source = python_source([IMAGES[kind], grey(7, 9)])
    assert levels(source) == [51, 7]
    assert source.labels is None
    assert source.pixels(0).shape == (6, 6, 3)
    assert source.stored(0) is None
    assert source.name(1) == "image 1"
    assert source.in_memory


@pytest.mark.parametrize("labels", [None, [3, 3, 7]])
def test_an_array_or_a_tensor_of_all_images_is_a_source(labels: list[int] | None) -> None:
    array = np.stack([grey(level) for level in (10, 20, 30)])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    for data in (array, tensor, tensor / 255):
        source = python_source(data, labels)
        assert levels(source) == [10, 20, 30]
        assert list(source.classes) == ([] if labels is None else ["3", "7"])


def test_a_data_set_of_pairs_has_labels_and_given_ones_come_first() -> None:
    source = python_source(Pairs(6))
    assert levels(source) == [0, 10, 20, 30, 40, 50]
    assert list(source.classes) == ["ant", "cat", "dog"]
    assert source.labels is not None
    assert source.labels.tolist() == [1, 2, 0, 1, 2, 0]
    assert not source.in_memory
    data = Pairs(6)
    source = python_source(data, labels=torch.tensor([5, 5, 5, 9, 9, 9]))
    assert list(source.classes) == ["5", "9"]
    assert data.reads <= 4  # labels are given: nothing is read through for them


def test_targets_and_names_of_classes_are_taken_from_the_data_set() -> None:
    data: Any = TensorDataset(torch.zeros(3, 3, 6, 6), torch.tensor([1, 0, 1]))
    data.targets, data.classes = [1, 0, 1], ["cat", "dog"]
    source = python_source(data)
    assert list(source.classes) == ["cat", "dog"]
    assert list(python_source(Subset(data, [0, 2])).classes) == ["1"]


def test_images_of_five_channels_are_read_as_five() -> None:
    source = python_source([np.zeros((6, 6, 5), np.uint8), torch.zeros(5, 8, 7)], channels=5)
    crops = source.crops([0, 1], CropSpec(CenterBoxes(2, 1.0), 4, "bicubic"))
    assert crops.images[0].shape == (2, 1, 5, 4, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_of_their_step_with_and_without_workers_and_after_a_restart(
    workers: int,
) -> None:
    def seen(start: int, stop: int, workers: int) -> list[Tensor]:
        source = python_source(Pairs())
        sampler = ShuffleSampler(24, batch=8, seed=0)
        batches = local_batches(source, sampler, ViewsConfig(size=8), 0)
        return [
            batch.crops[0] for batch in read_ahead(batches, range(start, stop), workers=workers)
        ]

    whole = seen(0, 6, 0)
    for a, b in zip(whole[3:], seen(3, 6, workers), strict=True):
        assert torch.equal(a, b)


def test_a_source_can_be_sent_to_other_processes_and_what_cannot_is_read_in_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert levels(pickle.loads(pickle.dumps(python_source(Pairs(2))))) == [0, 10]

    class Local(Pairs):
        """Of no module: pickle cannot name it."""

    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "spawn")
    assert python_source(Local(2)).in_memory
    assert not python_source(Pairs(2)).in_memory


def test_an_item_that_fails_later_is_a_bad_image() -> None:
    class Broken(Pairs):
        def __getitem__(self, i: int) -> tuple[Any, Any]:
            if i == 3:
                raise RuntimeError("lost")
            return super().__getitem__(i)

    source = python_source(Broken(5), labels=[0] * 5)
    crops = source.crops([3, 0], CropSpec(CenterBoxes(2, 1.0), 6, "bilinear"))
    assert crops.bad == {3: "RuntimeError: lost"}
    assert crops.images[0][:, 0, 0, 0, 0].tolist() == [40, 0]
    assert audit(source, "data").bad == {3: "RuntimeError: lost"}


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        ([], None, "there are no images"),
        (np.zeros((0, 6, 6, 3), np.uint8), None, "must hold images"),
        (Stream(), None, "a Stream cannot be read by position"),
        (iter([grey(0)]), None, "a list_iterator cannot be read by position"),
        ([grey(0), np.zeros((6, 6, 5), np.uint8)], None, r"image 1 .*\[6, 6, 5\].* 1 or 3 or 4 ch"),
        ([np.zeros((6, 6, 3), np.int64)], None, "image 0 .* type is int64; expected uint8"),
        ([torch.randn(3, 6, 6)], None, "image 0 .* take a normalisation out of the data set"),
        (torch.randn(2, 3, 6, 6), None, "the array cannot be used: its values go from"),
        ([torch.full((3, 6, 6), torch.nan)], None, "image 0 .* from nan to nan"),
        (["cat.png"], None, "image 0 cannot be used: it is a str, not a PIL image"),
        ([grey(0)] * 3, [1, 2], "there are 3 images and 2 labels"),
        ([grey(0)] * 2, [0.5, 1.5], "a whole number or a word for each image, not float64"),
        (Random(), None, "image 0 differs when it is read twice"),
    ],
)
def test_what_cannot_be_a_source_is_one_sentence(data: Any, labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        python_source(data, labels)
    assert "\n" not in str(raised.value)


def test_pil_images_have_no_five_channels() -> None:
    with pytest.raises(UserError, match="a PIL image has 1, 3 or 4 channels, not 5"):
        python_source([Image.fromarray(grey(0))], channels=5)


class Targets:
    """A data set of pairs as torchvision's are, perhaps with changed targets or a broken item."""

    targets = (0, 1, 2, 3)

    def __init__(self, change: bool = False, broken: int = -1) -> None:
        self.target_transform = (lambda label: label % 2) if change else None
        self.broken = broken

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        if i == self.broken:
            raise RuntimeError("boom")
        label = self.targets[i] if self.target_transform is None else self.target_transform(i)
        return np.full((8, 8, 3), i, np.uint8), label


def test_labels_are_those_of_the_items_where_targets_are_changed() -> None:
    for change, expected in ((False, [0, 1, 2, 3]), (True, [0, 1, 0, 1])):
        labels = python_source(Targets(change)).labels
        assert labels is not None
        assert labels.tolist() == expected


def test_an_item_without_a_readable_label_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"item 2 cannot be read for its label \(Runtime"):
        python_source(Targets(change=True, broken=2))
