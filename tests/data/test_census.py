"""What an epoch will hold, counted before it is trained on."""

import torch

from selfsup.data.batch_census import Span, census
from selfsup.data.samplers import PKSampler

LABELS = torch.tensor([0] * 5 + [1] * 4 + [2] * 2 + [3])  # the last class has one image


def test_the_census_of_uneven_classes_can_be_counted_by_hand() -> None:
    actual = census(PKSampler(LABELS, p=3, k=2, seed=0), LABELS)
    assert actual.images == 12
    assert actual.unseen == 1  # the image that is alone in its class
    assert actual.classes == actual.classes == Span(3, 3)
    assert actual.anchors == Span(6, 6)
    assert actual.positives == Span(1, 1)
    assert actual.negatives == Span(4, 4)
    assert actual.repeated == 0
    assert actual.steps == 3  # the class of five has three groups of two


def test_a_class_with_fewer_images_than_k_repeats_some() -> None:
    actual = census(PKSampler(LABELS, p=3, k=4, seed=0), LABELS)
    assert actual.steps == 2
    assert actual.repeated >= 2 * actual.steps  # the class of two fills four places
    assert actual.positives == Span(3, 3)


class Fixed:
    """Two fixed batches."""

    steps_per_epoch = 2

    def __call__(self, step: int) -> torch.Tensor:
        return torch.tensor([[0, 1, 5, 11], [0, 2, 3, 4]][step])


def test_anchors_without_a_positive_or_a_negative_do_not_count() -> None:
    actual = census(Fixed(), LABELS)
    assert actual.classes == Span(1, 3)
    assert actual.anchors == Span(0, 2)
    assert actual.positives == Span(0, 3)
    assert actual.negatives == Span(0, 3)
    assert actual.unseen == 12 - 7
    assert str(actual.anchors) == "0 to 2"
    assert str(Span(4, 4)) == "4"
