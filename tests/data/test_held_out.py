"""Held-out classes: a function of the seed, whole, and never in a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import many_classes

from selfsup.config import FinetuneConfig, ValidationConfig
from selfsup.core.errors import UserError
from selfsup.data.held_out import fraction_held_out, held_out_classes, hold_out
from selfsup.data.open import open_source
from selfsup.data.samplers import PKSampler
from selfsup.training.finetune import labelled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(many_classes(tmp_path_factory.mktemp("data") / "many.npz"))


@pytest.mark.parametrize("seed", range(12))
def test_an_image_of_a_held_out_class_is_never_in_a_batch(data: str, seed: int) -> None:
    config = FinetuneConfig(data=data, out="x", seed=seed)
    images = labelled(config)
    assert images.held_out is not None
    held = {images.held_out.name(i) for i in range(len(images.held_out))}
    sampler = PKSampler(images.labels, p=16, k=4, seed=seed)
    seen = {
        images.trained.name(position)
        for step in range(3 * sampler.steps_per_epoch)
        for position in sampler(step).tolist()
    }
    assert len(seen) == 81 * 4
    assert len(held) == 9 * 4
    assert not seen & held
    classes = set(images.trained.classes), set(images.held_out.classes)
    assert not classes[0] & classes[1]
    assert len(classes[0] | classes[1]) == 90


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_each_part_numbers_its_own_classes_and_keeps_their_names(
    data: str, fraction: float
) -> None:
    source = open_source(data, labels="label")
    assert source.labels is not None
    names = {source.name(i): source.classes[label] for i, label in enumerate(source.labels)}
    for part in hold_out(source, fraction=fraction, seed=1):
        assert part is not None
        assert part.labels is not None
        assert part.labels.unique().tolist() == list(range(len(part.classes)))
        for i, label in enumerate(part.labels.tolist()):
            assert part.classes[label] == names[part.name(i)]


def test_which_classes_are_held_out_is_a_function_of_the_seed_alone() -> None:
    labels = torch.arange(120).repeat(3)
    drawn = {seed: held_out_classes(labels, fraction=0.1, seed=seed) for seed in range(40)}
    torch.manual_seed(99)
    shuffled = labels[torch.randperm(len(labels))]
    for seed, classes in drawn.items():
        assert torch.equal(held_out_classes(shuffled, fraction=0.1, seed=seed), classes)
        assert len(classes.unique()) == 12
    assert len({tuple(classes.tolist()) for classes in drawn.values()}) == 40
    assert len(torch.cat(list(drawn.values())).unique()) == 120  # over seeds all are drawn


def test_classes_with_one_image_are_never_held_out() -> None:
    labels = torch.cat([torch.arange(100).repeat(2), torch.arange(100, 200)])
    for seed in range(20):
        held = held_out_classes(labels, fraction=0.2, seed=seed)
        assert len(held) == 20
        assert int(held.max()) < 100


@pytest.mark.parametrize(
    ("classes", "given", "data", "fraction"),
    [
        (80, None, "", 0.1),
        (79, None, "", 0.0),
        (200, None, "mine.npz", 0.0),
        (200, 0.0, "mine.npz", 0.0),
        (200, 0.0, "", 0.0),
        (40, 0.2, "", 0.2),
    ],
)
def test_a_tenth_is_held_out_of_80_classes_and_more_unless_another_is_given(
    classes: int, given: float | None, data: str, fraction: float
) -> None:
    labels = torch.cat([torch.arange(classes).repeat(2), torch.arange(300, 400)])
    assert fraction_held_out(labels, ValidationConfig(held_out=given, data=data)) == fraction


@pytest.mark.parametrize(
    ("given", "data", "sentence"),
    [
        (1.5, "", "--probe.held-out must be from 0 to below 1, not 1.5"),
        (1.0, "", "--probe.held-out must be from 0 to below 1, not 1"),
        (-0.1, "", "--probe.held-out must be from 0 to below 1, not -0.1"),
        (0.1, "mine.npz", "two sets to validate on"),
        (0.1, "", "of 40 classes with two images or more holds 4 out and trains on 36"),
        (0.98, "", "of 40 classes with two images or more holds 39 out and trains on 1"),
    ],
)
def test_a_fraction_that_cannot_be_held_out_is_one_sentence(
    given: float, data: str, sentence: str
) -> None:
    labels = torch.tensor(np.arange(40).repeat(2))
    with pytest.raises(UserError) as caught:
        fraction_held_out(labels, ValidationConfig(held_out=given, data=data))
    assert sentence in str(caught.value)


def test_few_classes_are_all_trained_on(tmp_path: Path) -> None:
    data = many_classes(tmp_path / "few.npz", classes=20)
    images = labelled(FinetuneConfig(data=str(data), out="x"))
    assert images.held_out is None
    assert len(images.trained) == 80
