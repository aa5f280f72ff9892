"""The linear probe against scikit-learn, and that the test images choose nothing."""

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from selfsup.evaluate.linear_probe import STRENGTHS, linear_probe

pytestmark = pytest.mark.slow


def blobs(seed: int, n: int, distance: float) -> tuple[Tensor, Tensor]:
    """Three clouds of width 1 at `distance` from the origin, with scales that differ."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.randn(n, 3, generator=g) + distance * torch.eye(3)[labels]
    return x * torch.tensor([1.0, 100.0, 0.01]) + 5, labels


def test_separable_classes_are_predicted_as_scikit_learn_does() -> None:
    train, labels = blobs(0, 36, 12.0)
    test, truth = blobs(1, 15, 12.0)
    probe = linear_probe(train, labels, test, seed=0)
    oracle = make_pipeline(StandardScaler(), LogisticRegression())
    expected = oracle.fit(train.numpy(), labels.numpy()).predict(test.numpy())
    assert probe.predictions.tolist() == expected.tolist() == truth.tolist()
    assert probe.predictions.dtype == torch.int64
    assert probe.converged


@pytest.mark.parametrize("strength", [0.001, 1.0])
def test_the_last_fit_is_on_all_of_the_training_images_with_the_chosen_strength(
    strength: float,
) -> None:
    train, labels = blobs(2, 12, 1.0)  # so few that each image moves the border
    test, _ = blobs(3, 400, 1.0)
    probe = linear_probe(train, labels, test, seed=0, strengths=(strength,))
    x = train.double()
    mean, std = x.mean(0), x.std(0)
    oracle = LogisticRegression(C=strength, max_iter=1000)
    oracle.fit(((x - mean) / std).numpy(), labels.numpy())
    expected = oracle.predict(((test.double() - mean) / std).numpy())
    assert probe.setting == strength
    assert float(np.mean(probe.predictions.numpy() == expected)) >= 0.99


def test_the_test_images_take_no_part_in_any_choice() -> None:
    train, labels = blobs(4, 39, 1.0)
    test, _ = blobs(5, 20, 1.0)
    probe = linear_probe(train, labels, test, seed=0)
    wild = torch.cat([test[:5], test[5:] * 1e3 - 7])
    other = linear_probe(train, labels, wild, seed=0)
    assert other.setting == probe.setting
    assert torch.equal(other.predictions[:5], probe.predictions[:5])
    alone = linear_probe(train, labels, test[:1], seed=0)
    assert torch.equal(alone.predictions, probe.predictions[:1])


def test_the_strength_is_the_one_that_does_best_on_held_out_images() -> None:
    # a bad candidate cannot win: with almost no weight every class looks alike
    train, labels = blobs(6, 40, 6.0)
    labels = torch.where(torch.arange(40) % 10 == 0, labels, torch.zeros_like(labels) + 2)
    train = train.clone()
    train[:, 0] = (labels == 2).float() * 4 + torch.randn(
        40, generator=torch.Generator().manual_seed(1)
    )
    probe = linear_probe(train, labels, train, seed=0, strengths=(1e-9, 1.0))
    assert probe.setting == 1.0


def test_of_equally_good_strengths_the_first_which_regularises_most_is_taken() -> None:
    train, labels = blobs(0, 36, 12.0)
    assert linear_probe(train, labels, train[:1], seed=0).setting == STRENGTHS[0]


def test_labels_may_be_any_integers() -> None:
    train, labels = blobs(0, 36, 12.0)
    test, truth = blobs(1, 15, 12.0)
    names = torch.tensor([40, 7, 2**24 + 1])
    probe = linear_probe(train, names[labels], test, seed=0)
    assert torch.equal(probe.predictions, names[truth])


def test_a_feature_that_never_changes_does_no_harm() -> None:
    train, labels = blobs(0, 36, 12.0)
    test, truth = blobs(1, 15, 12.0)
    dead = torch.ones(36, 1), torch.ones(15, 1)
    probe = linear_probe(
        torch.cat([train, dead[0]], 1), labels, torch.cat([test, dead[1]], 1), seed=0
    )
    assert torch.equal(probe.predictions, truth)


def test_progress_is_told_of_every_fit() -> None:
    train, labels = blobs(0, 36, 12.0)
    fits: list[int] = []
    linear_probe(train, labels, train, seed=0, strengths=(0.1, 1.0), progress=fits.append)
    assert fits == [1, 1, 1]


def test_one_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 classes"):
        linear_probe(torch.randn(6, 2), torch.ones(6, dtype=torch.int64), torch.ones(1, 2), seed=0)


def test_classes_of_one_image_each_are_an_error() -> None:
    with pytest.raises(ValueError, match="no class has 2 images"):
        linear_probe(torch.randn(4, 2), torch.arange(4), torch.ones(1, 2), seed=0)


@pytest.mark.parametrize(("n", "d", "c"), [(40, 2048, 4), (9, 3072, 3), (300, 700, 5)])
def test_a_probe_of_wide_features_takes_about_as_long_as_scikit_learn_and_agrees(
    n: int, d: int, c: int
) -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % c
    centres = torch.randn(c, d, generator=g)
    train = torch.randn(n, d, generator=g) + 0.3 * centres[labels]
    truth = torch.arange(60) % c
    test = torch.randn(60, d, generator=g) + 0.3 * centres[truth]
    linear_probe(train, labels, test, seed=0, strengths=(1.0,))  # compiles the loops
    begun = time.process_time()
    probe = linear_probe(train, labels, test, seed=0)
    ours = time.process_time() - begun
    begun = time.process_time()
    scaler = StandardScaler().fit(train.numpy())
    for strength in STRENGTHS:
        oracle = LogisticRegression(C=strength, max_iter=1000)
        oracle.fit(scaler.transform(train.numpy()), labels.numpy())
    theirs = time.process_time() - begun
    assert ours < 5 * theirs + 1
    assert probe.converged
    oracle = LogisticRegression(C=probe.setting, max_iter=1000)
    oracle.fit(scaler.transform(train.numpy()), labels.numpy())
    expected = oracle.predict(scaler.transform(test.numpy()))
    assert float(np.mean(probe.predictions.numpy() == expected)) >= 0.96


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_the_scale_of_features_changes_no_prediction(scale: float) -> None:
    train, labels = blobs(0, 36, 3.0)
    test, _ = blobs(1, 30, 3.0)
    expected = linear_probe(train, labels, test, seed=0).predictions
    assert torch.equal(
        linear_probe(train * scale, labels, test * scale, seed=0).predictions, expected
    )
