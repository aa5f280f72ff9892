"""What an epoch will hold, counted before it is trained on."""

import torch

from selfsup.data.batch_census import Span, census
from selfsup.data.samplers import PKSampler

LABELS = torch.tensor([0] * 5 + [1] * 4 + [2] * 2 + [3])  # the last class has one image


def test_the_census_of_uneven_classes_can_be_counted_by_hand() -> None:
    found = census(PKSampler(LABELS, p=3, k=2, seed=0), LABELS)
    assert found.images == 12
    assert found.unseen == 1  # the image that is alone in its class
    assert found.classes == found.classes == Span(3, 3)
    assert found.anchors == Span(6, 6)
    assert found.positives == Span(1, 1)
    assert found.negatives == Span(4, 4)
    assert found.repeated == 0
    assert found.steps == 3  # the class of five has three groups of two


def test_a_class_with_fewer_images_than_k_repeats_some() -> None:
    found = census(PKSampler(LABELS, p=3, k=4, seed=0), LABELS)
    assert found.steps == 2
    assert found.repeated >= 2 * found.steps  # the class of two fills four places
    assert found.positives == Span(3, 3)


class Fixed:
    """Batches as given."""

    steps_per_epoch = 2

    def __call__(self, step: int) -> torch.Tensor:
        return torch.tensor([[0, 1, 5, 11], [0, 2, 3, 4]][step])


def test_anchors_without_a_positive_or_a_negative_do_not_count() -> None:
    found = census(Fixed(), LABELS)
    assert found.classes == Span(1, 3)
    assert found.anchors == Span(0, 2)
    assert found.positives == Span(0, 3)
    assert found.negatives == Span(0, 3)
    assert found.unseen == 12 - 7
    assert str(found.anchors) == "0 to 2"
    assert str(Span(4, 4)) == "4"
