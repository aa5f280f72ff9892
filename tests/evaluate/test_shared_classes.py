"""Classes and images of two sets: what they share by name, and test images that train has too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfsup.config import EvaluateConfig, KNNConfig, LinearConfig, RetrievalConfig
from selfsup.core.errors import UserError
from selfsup.evaluate.intervals import Figure
from selfsup.evaluate.results import NOT_IN_TRAIN, Evaluation
from selfsup.evaluate.run import knn, linear, retrieval

pytestmark = pytest.mark.slow

PIXELS: dict[str, Any] = {"model": "pixels", "baselines": (), "resamples": 0}
TOOLS: dict[str, tuple[Callable[[Any], Evaluation], type[EvaluateConfig], str]] = {
    "knn": (knn, KNNConfig, "test"),
    "linear": (linear, LinearConfig, "test"),
    "retrieval": (retrieval, RetrievalConfig, "queries"),
}


def coloured(classes: list[int], seed: int) -> np.ndarray:
    """Images of three colours with noise: easy to classify."""
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
    noise = np.random.default_rng(seed).integers(-20, 20, (len(classes), 8, 8, 3))
    images: np.ndarray = colours[np.array(classes)][:, None, None] + noise
    return images.clip(0, 255).astype(np.uint8)


def save(file: Path, images: np.ndarray, **more: Any) -> str:
    np.savez(file, images=images, **more)
    return str(file)


def measure(tool: str, train: str, test: str, **more: Any) -> Evaluation:
    evaluate, config, key = TOOLS[tool]
    return evaluate(config(**(PIXELS | {"data": train, key: test} | more)))


def value(evaluation: Evaluation, name: str) -> float:
    figure = evaluation.figures[name]
    return figure.value if isinstance(figure, Figure) else figure


CLASSES = [0, 1, 2] * 8
NAMES = np.array(["cat", "dog", "emu"])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(["cat", "dog", "emu"], ["Cat", "Dog", "Emu"]), (["1", "2", "3"], ["one", "two", "three"]),
     (["cat", "dog", "emu"], ["cats", "dogs", "emus"]), (["a", "b", "c"], ["0", "1", "2"])],
)  # fmt: skip
def test_no_shared_class_is_refused_with_names_of_both(
    tmp_path: Path, tool: str, ours: list[str], theirs: list[str]
) -> None:
    train = save(tmp_path / "a.npz", coloured(CLASSES, 0), labels=CLASSES, classes=ours)
    test = save(tmp_path / "b.npz", coloured(CLASSES, 1), labels=CLASSES, classes=theirs)
    with pytest.raises(UserError) as caught:
        measure(tool, train, test, leaks=False)
    message = str(caught.value)
    assert "classes are matched by name" in message
    assert "b.npz" in message
    assert "a.npz" in message
    assert repr(ours[0]) in message


@pytest.mark.parametrize("tool", ["knn", "linear"])
def test_test_images_of_classes_that_train_lacks_are_counted_above_the_table(
    tmp_path: Path, tool: str
) -> None:
    train = save(tmp_path / "a.npz", coloured([0, 1] * 12, 0), labels=NAMES[[0, 1] * 12])
    test = save(tmp_path / "b.npz", coloured(CLASSES, 1), labels=NAMES[CLASSES])
    evaluation = measure(tool, train, test, leaks=False)
    assert any("8 of 24 test images are of 1 classes" in line for line in evaluation.warnings)
    assert str(evaluation).startswith("WARNING: 8 of 24 test images")
    assert evaluation.to_dict()["warnings"] == list(evaluation.warnings)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("doubled", ["train", "test"])
def test_two_classes_of_one_name_are_refused(tmp_path: Path, tool: str, doubled: str) -> None:
    names = {"train": ["cat", "dog", "emu"], "test": ["dog", "cat", "emu"]}
    names[doubled] = ["cat", "cat", "emu"]
    train, test = (
        save(tmp_path / f"{key}.npz", coloured(CLASSES, i), labels=CLASSES, classes=names[key])
        for i, key in enumerate(names)
    )
    with pytest.raises(UserError, match="names stand for two classes each, such as 'cat'"):
        measure(tool, train, test, leaks=False)


def test_the_same_list_of_classes_is_matched_by_number(tmp_path: Path) -> None:
    names = ["crane", "crane", "emu"]  # ImageNet has two cranes
    train, test = (
        save(tmp_path / f"{i}.npz", coloured(CLASSES, i), labels=CLASSES, classes=names)
        for i in range(2)
    )
    assert value(measure("knn", train, test, leaks=False), "k-NN, k 20, T 0.1") == 1


def test_figures_without_copies_are_those_of_leave_one_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    data = save(tmp_path / "a.npz", noise, labels=np.arange(40) // 4)
    both, alone = measure("retrieval", data, data), measure("retrieval", data, "")
    assert value(both, "Recall@1") == 1
    for name in ("Recall@1", "Recall@4", "MAP@R"):
        assert value(both, name + NOT_IN_TRAIN) == pytest.approx(value(alone, name))
    both, alone = measure("knn", data, data, k=(3,)), measure("knn", data, "", k=(3,))
    name = "k-NN, k 3, T 0.1"
    assert value(both, name) > value(alone, name)
    assert value(both, name + NOT_IN_TRAIN) == pytest.approx(value(alone, name))
    assert str(both).startswith("WARNING: all 40 test images are in train too")


def test_a_part_of_train_in_another_order_is_left_out_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) // 6
    data = save(tmp_path / "a.npz", noise, labels=labels)
    some = np.random.default_rng(2).permutation(60)[:25]
    test = save(tmp_path / "b.npz", noise[some], labels=labels[some])
    for tool, name in (("knn", "k-NN, k 20, T 0.1"), ("retrieval", "Recall@1")):
        figures = measure(tool, data, test)
        assert value(figures, name) > 0.9
        assert value(figures, name + NOT_IN_TRAIN) < 0.5


@pytest.mark.parametrize("kind", ["png to bmp", "copies twice"])
def test_copies_in_other_files_are_left_out_too(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    for i in range(24):
        small = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)
        for side in ("train", "test"):
            folder = tmp_path / side / "abcd"[i % 4]
            folder.mkdir(parents=True, exist_ok=True)
            suffix = "bmp" if (side, kind) == ("test", "png to bmp") else "png"
            image.save(folder / f"{i}.{suffix}")
            if (side, kind) == ("train", "copies twice"):
                image.save(folder / f"{i}-again.png")
    train, test = str(tmp_path / "train"), str(tmp_path / "test")
    for tool, name in (("knn", "k-NN, k 1, T 0.1"), ("retrieval", "Recall@1")):
        more: dict[str, Any] = {"k": (1,)} if tool == "knn" else {}
        figures = measure(tool, train, test, **more)
        assert value(figures, name) == 1
        assert value(figures, name + NOT_IN_TRAIN) < 0.7


def test_some_leaked_images_are_said_above_the_table(tmp_path: Path) -> None:
    images = coloured(CLASSES, 0)
    train = save(tmp_path / "a.npz", images, labels=CLASSES)
    mixed = np.concatenate([images[:6], coloured(CLASSES[:6], 9)])
    test = save(tmp_path / "b.npz", mixed, labels=CLASSES[:6] * 2)
    evaluation = measure("linear", train, test)
    leaked = sum(int(v) for k, v in evaluation.facts.items() if k.startswith("leaked"))
    assert f"{leaked} of 12 test images are in train too" in evaluation.warnings[0]
