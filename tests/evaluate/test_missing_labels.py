"""Evaluations and training of images of which some have no label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import encoder

from selfsup import embed
from selfsup.config import (
    FinetuneConfig,
    HealthConfig,
    KNNConfig,
    LinearConfig,
    RetrievalConfig,
    VerifyConfig,
)
from selfsup.config.pretraining import SupConConfig
from selfsup.core.errors import UserError
from selfsup.core.seeds import StepInfo
from selfsup.evaluate.intervals import Figure
from selfsup.evaluate.run import health, knn, linear, retrieval, verify
from selfsup.methods.method import TwoViews
from selfsup.methods.supcon import SupCon
from selfsup.training.finetune import labelled

PLAIN: dict[str, Any] = {"model": "pixels", "size": 8, "baselines": (), "resamples": 0}


def colours(folder: Path, labels: list[object], name: str = "x") -> str:
    """Images near one colour for each label, and the file that has them."""
    rng = np.random.default_rng(0)
    colours = [(200, 0, 0) if x == 0 else (0, 0, 200) for x in labels]
    noise = rng.integers(0, 50, (len(labels), 8, 8, 3))
    images = (np.array(colours)[:, None, None] + noise).astype(np.uint8)
    np.savez(folder / f"{name}.npz", images=images, labels=np.array([str(x) for x in labels]))
    return str(folder / f"{name}.npz")


HALF: list[object] = [0, 1, "", " ", "nan", "null"] * 10
WHOLE: list[object] = [0, 1] * 10


def test_images_without_label_count_in_no_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, test = colours(tmp_path, HALF, "half"), colours(tmp_path, [*WHOLE, "", " "], "test")
    alone = knn(KNNConfig(data=data, k=(3,), **PLAIN))
    assert alone.facts["bank"] == 20
    assert alone.figures["k-NN, k 3, T 0.1"] == Figure(1, 1, 1)
    tested = knn(KNNConfig(data=data, test=test, k=(3,), leaks=False, **PLAIN))
    assert (tested.facts["bank"], tested.facts["queries"]) == (20, 20)
    fitted = linear(LinearConfig(data=data, test=test, leaks=False, **PLAIN))
    assert fitted.figures["linear probe"] == Figure(1, 1, 1)
    found = retrieval(RetrievalConfig(data=data, queries=test, leaks=False, **PLAIN))
    assert found.figures["Recall@1"] == Figure(1, 1, 1)
    pairs = verify(VerifyConfig(data=data, **PLAIN))
    assert pairs.facts["pairs of one label"] == 90
    assert health(HealthConfig(data=data, **PLAIN)).facts["clusters"] == 2
    assert f"{data}: left out 40 of 60 images without label" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [[0] * 6, [0, "", 0, " "], [1, "nan"]])
def test_one_class_is_refused(tmp_path: Path, labels: list[object]) -> None:
    data = colours(tmp_path, labels)
    for measure in (
        lambda: knn(KNNConfig(data=data, k=(1,), **PLAIN)),
        lambda: linear(LinearConfig(data=data, **PLAIN)),
        lambda: labelled(FinetuneConfig(data=data, out=str(tmp_path / "run"))),
    ):
        with pytest.raises(UserError, match="all labels are the same"):
            measure()


def test_classes_of_one_image_are_refused_where_none_is_for_testing(tmp_path: Path) -> None:
    data = colours(tmp_path, [0, 1, "a", "b", "c"])
    with pytest.raises(UserError, match=r"each of the 5 classes of .* has one image"):
        knn(KNNConfig(data=data, k=(1,), **PLAIN))
    tested = knn(KNNConfig(data=data, test=data, k=(1,), leaks=False, **PLAIN))
    assert tested.facts["queries"] == 5


def test_ranking_never_sees_images_without_label(tmp_path: Path) -> None:
    data = colours(tmp_path, HALF)
    images = labelled(FinetuneConfig(data=data, out=str(tmp_path / "run")))
    assert len(images.trained) == 20
    assert images.labels.unique().tolist() == [0, 1]


def test_embeddings_of_images_without_label_have_an_empty_word(tmp_path: Path) -> None:
    words = embed("pixels", colours(tmp_path, [0, "", 1, None])).labels
    assert words == ["0", "", "1", ""]


def test_in_supcon_an_image_without_label_is_a_class_of_its_own() -> None:
    method = SupCon(encoder(), SupConConfig())
    g = torch.Generator().manual_seed(0)
    z = TwoViews(*torch.randn(2, 5, 128, generator=g))
    info = StepInfo(0, 1, 0)
    several = method.loss(z, torch.tensor([0, -1, 0, -1, -1]), info)
    assert torch.equal(several, method.loss(z, torch.tensor([0, 1, 0, 2, 3]), info))
