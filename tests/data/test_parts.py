"""Parts to train on, to choose by and to judge by have no image in common."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core.errors import UserError
from selfsup.data.parts import Parts, divide, halve
from selfsup.data.sources import ArraySource, Source


def source_of(counts: list[int]) -> ArraySource:
    """Images whose first pixel is their number, in classes of these sizes."""
    labels = torch.tensor([label for label, n in enumerate(counts) for _ in range(n)])
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    return ArraySource(images, labels, [f"c{i}" for i in range(len(counts))])


def numbers(source: Source | None) -> set[int]:
    """The numbers of a part's images."""
    assert source is not None
    pixels = [source.pixels(i) for i in range(len(source))]
    return {int(x[0, 0, 0]) * 256 + int(x[0, 0, 1]) for x in pixels}


def classes(source: Source | None) -> set[int]:
    assert source is not None
    assert source.labels is not None
    return set(source.labels.tolist())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=130), st.integers(0, 5))
def test_parts_are_all_images_once_and_can_be_searched(counts: list[int], seed: int) -> None:
    source = source_of(counts)
    try:
        parts = divide(source, "x", seed=seed)
    except UserError:
        searchable = sum(n > 1 for n in counts)
        assert searchable < 80
        assert sum(n >= 6 for n in counts) < 2
        return
    three = [numbers(part) for part in parts[:3]]
    assert sum(map(len, three)) == len(source)
    assert set.union(*three) == set(range(len(source)))
    for part in (parts.choice, parts.verdict):
        assert part is not None
        assert part.labels is not None
        assert int(torch.bincount(part.labels).max()) >= 2
        assert all(n >= 2 for n in part.labels.unique(return_counts=True)[1].tolist())


def test_of_80_classes_a_tenth_chooses_and_a_tenth_judges_unseen() -> None:
    parts = divide(source_of([3] * 80), "x", seed=0)
    assert parts.unseen
    assert [len(classes(part)) for part in parts[:3]] == [64, 8, 8]
    assert not classes(parts.train) & classes(parts.verdict)
    assert str(parts) == "64 classes to train on, 8 to choose by, 8 to judge by"


def test_of_fewer_classes_a_fifth_of_the_images_of_each_does() -> None:
    parts = divide(source_of([20] * 79), "x", seed=0)
    assert not parts.unseen
    for part, n in zip(parts[:3], (12, 4, 4), strict=True):
        assert part is not None
        assert part.labels is not None
        assert torch.bincount(part.labels).tolist() == [n] * 79
    assert "948 images of the same classes to train on, 316 to choose by" in str(parts)


def test_classes_of_one_image_are_trained_on() -> None:
    parts = divide(source_of([2] * 80 + [1] * 40), "x", seed=3)
    assert set(range(80, 120)) <= classes(parts.train)


def test_other_images_judge_where_there_are_some() -> None:
    parts = divide(source_of([3] * 80), "x", seed=0, verdict=False)
    whole = divide(source_of([3] * 80), "x", seed=0)
    assert parts.verdict is None
    assert numbers(parts.choice) == numbers(whole.choice)
    assert numbers(parts.train) == numbers(whole.train) | numbers(whole.verdict)
    assert str(parts) == "72 classes to train on, 8 to choose by"


def test_the_seed_chooses_and_nothing_else() -> None:
    def judged(parts: Parts) -> set[int]:
        return numbers(parts.verdict)

    source = source_of([3] * 90)
    assert judged(divide(source, "x", seed=1)) == judged(divide(source, "x", seed=1))
    assert judged(divide(source, "x", seed=1)) != judged(divide(source, "x", seed=2))


@pytest.mark.parametrize("counts", [[5] * 79, [100, 5, 5], [1] * 500])
def test_too_little_to_judge_by_is_one_sentence(counts: list[int]) -> None:
    with pytest.raises(UserError, match=r"x has \d+ classes of up to \d+ images, too few"):
        divide(source_of(counts), "x", seed=0)


def test_halves_share_nothing_and_differ_by_one_of_a_class() -> None:
    first, second = halve(source_of([1, 2, 5, 8]), seed=0)
    assert not numbers(first) & numbers(second)
    assert numbers(first) | numbers(second) == set(range(16))
    assert first.labels is not None
    assert second.labels is not None
    assert torch.bincount(first.labels, minlength=4).tolist() == [1, 1, 3, 4]
    assert torch.bincount(second.labels, minlength=4).tolist() == [0, 1, 2, 4]
