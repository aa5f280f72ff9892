"""Label suspects: found whatever the size of classes, and never a false all-clear."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.evaluate.label_suspects import label_suspects
from selfsup.report.embeddings import describe_suspects


def clusters(classes: int, size: int) -> tuple[Tensor, Tensor]:
    """Labels, and the 20 nearest of each image: its own class first, in order, then the others."""
    labels = torch.arange(classes).repeat_interleave(size)
    rows = []
    for i, label in enumerate(labels.tolist()):
        order = sorted(range(len(labels)), key=lambda j: (int(labels[j]) != label, j))
        rows.append([j for j in order if j != i][:20])
    return labels, torch.tensor(rows)


@pytest.mark.parametrize("size", [6, 8, 16, 20, 40, 100])
def test_one_wrong_label_is_found_in_classes_of_any_size_from_six(size: int) -> None:
    labels, indices = clusters(4, size)
    labels[2] = 3
    suspects = label_suspects(labels, indices)
    assert suspects.rows.tolist() == [2]
    assert suspects.suggested.tolist() == [0]
    assert (suspects.classes, suspects.small_classes) == (4, 0)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_classes_of_four_images_are_too_small_to_tell(size: int) -> None:
    labels, indices = clusters(8, size)
    suspects = label_suspects(labels, indices)
    assert (suspects.classes, suspects.small_classes) == (0, 8)
    (sentence,) = describe_suspects(suspects, len(labels), "x.csv")
    assert sentence.startswith("Classes are too small to tell: none of 8 has 5 images or more")


def test_small_classes_beside_large_ones_are_counted() -> None:
    labels = torch.tensor([0] * 8 + [1] * 8 + [2] * 3)
    _, indices = clusters(1, 19)
    suspects = label_suspects(labels, indices)
    assert (suspects.classes, suspects.small_classes) == (2, 1)
    assert "1 of 3 classes have fewer than 5 images" in describe_suspects(suspects, 19, "x")[1]


def test_embeddings_that_know_no_class_clear_no_label() -> None:
    labels = torch.arange(200) % 10
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(200, generator=generator)[:20] for _ in labels])
    sentences = describe_suspects(label_suspects(labels, indices), 200, "x")
    assert "cannot show that labels are right" in sentences[-1]
    clear = describe_suspects(label_suspects(*clusters(5, 30)), 150, "x")
    assert len(clear) == 1


def test_images_without_a_label_neither_vote_nor_are_suspect() -> None:
    labels, indices = clusters(2, 12)
    labels[0] = -1
    labels[13:] = -1
    suspects = label_suspects(labels, indices)
    assert suspects.rows.tolist() == []
    assert suspects.classes == 1


def by_counting(labels: list[int], indices: list[list[int]]) -> dict[int, tuple[int, Fraction]]:
    """Image -> another label and the fraction for it, where 80 % of those asked agree."""
    sizes = Counter(labels)
    found = {}
    for i, neighbours in enumerate(indices):
        for other, size in sizes.items():
            asked = min(20, max(5, size // 2), len(neighbours))
            votes = sum(labels[j] == other for j in neighbours[:asked])
            if other != labels[i] and size >= 5 and asked >= 5 and votes * 5 >= asked * 4:
                found[i] = (other, Fraction(votes, asked))
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(7, 40))
def test_suspects_are_those_of_a_count(seed: int, classes: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    centre = draw.integers(0, classes, n)
    labels = np.where(draw.random(n) < 0.85, centre, draw.integers(0, classes, n))
    place = 3 * centre + draw.normal(size=n)
    distance = np.abs(place[:, None] - place)
    np.fill_diagonal(distance, np.inf)
    indices = distance.argsort(1)[:, : min(20, n - 1)]
    suspects = label_suspects(torch.from_numpy(labels), torch.from_numpy(indices))
    expected = by_counting(labels.tolist(), indices.tolist())
    assert set(suspects.rows.tolist()) == set(expected)
    for row, agreement in zip(suspects.rows.tolist(), suspects.agreement.tolist(), strict=True):
        assert agreement == pytest.approx(float(expected[row][1]))
    assert suspects.agreement.tolist() == sorted(suspects.agreement.tolist(), reverse=True)
