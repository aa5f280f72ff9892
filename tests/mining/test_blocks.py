"""Miners of many blocks, of large classes, and of draws at the very end."""

import pytest
import torch
from oracles import mining as oracle
from torch import Tensor

import selfsup.losses.row_blocks
from selfsup.losses.measures import Distance
from selfsup.mining.distances import batch_easy_hard, batch_hard, semi_hard, semi_hard_all
from selfsup.mining.multi_similarity import multi_similarity_pairs
from selfsup.mining.sampled import _pick, distance_weighted, random_triplets

UNIT = Distance()


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mined(x: Tensor, labels: Tensor, anchors: int | None) -> dict[str, tuple[Tensor, ...]]:
    """What every miner finds."""
    return {
        "batch-hard": batch_hard(x, labels, distance=UNIT, anchors=anchors),
        "hard-positive": batch_easy_hard(
            x, labels, distance=UNIT, positive="hardest", negative="semi-hard", anchors=anchors
        ),
        "easy-positive": batch_easy_hard(
            x, labels, distance=UNIT, positive="easiest", negative="hardest", anchors=anchors
        ),
        "semi-hard": semi_hard(x, labels, distance=UNIT, margin=0.4, anchors=anchors),
        "semi-hard-all": semi_hard_all(x, labels, distance=UNIT, margin=0.4, anchors=anchors),
        "random": random_triplets(
            labels, generator=torch.Generator().manual_seed(1), anchors=anchors
        ),
        "distance-weighted": distance_weighted(
            x, labels, generator=torch.Generator().manual_seed(1), anchors=anchors
        ),
        "multi-similarity": multi_similarity_pairs(x, labels, epsilon=0.1, anchors=anchors),
    }


@pytest.mark.parametrize("anchors", [None, 17])
def test_miners_find_the_same_in_blocks_of_a_few_rows(
    anchors: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = normal(23, 4, 0), torch.arange(23) % 6
    labels[20:] = torch.tensor([7, 8, 9])  # images alone
    whole = mined(x, labels, anchors)
    monkeypatch.setattr(selfsup.losses.row_blocks, "BLOCK_SIZE", 1)
    monkeypatch.setattr(selfsup.losses.row_blocks, "MIN_ROWS", 1)
    for name, actual in mined(x, labels, anchors).items():
        pairs = zip(actual, whole[name], strict=True)
        if name == "multi-similarity":  # two sides
            assert all(torch.equal(i, j) for i, j in pairs), name
        else:
            assert len(whole[name][0]) >= 10
            assert all(torch.equal(i, j) for i, j in pairs), name


@pytest.mark.parametrize("anchors", [None, 40])
def test_batch_hard_of_a_large_class_is_its_definition_too(anchors: int | None) -> None:
    x, labels = normal(78, 3, 0), [0] * 30 + [1] * 6 + [0] * 40 + [2, 3]
    a, p, n = batch_hard(x, torch.tensor(labels), distance=UNIT, anchors=anchors)
    expected = oracle.batch_hard(x.tolist(), labels, "euclidean", True, anchors)
    distances = oracle.distances(x.tolist(), "euclidean", True)
    assert a.tolist() == [i for i, _, _ in expected]
    for i, j, k, (_, far, near) in zip(a.tolist(), p.tolist(), n.tolist(), expected, strict=True):
        assert (distances[i][j], distances[i][k]) == pytest.approx((far, near), abs=1e-12)


def test_the_nearest_negative_is_found_where_float32_products_cannot_tell() -> None:
    # Two negatives 1e-3 and 2e-3 from an anchor of length 100: their products differ by less than
    # a rounding of 5000, on which the order would hang.
    g = torch.Generator().manual_seed(0)
    rows: list[Tensor] = []
    labels: list[int] = []
    for anchor in 100 * torch.nn.functional.normalize(torch.randn(30, 8, generator=g)):
        aside = torch.nn.functional.normalize(torch.randn(2, 8, generator=g))
        rows += [anchor, anchor + 2e-3 * aside[0], anchor + 1e-3 * aside[1]]
        labels += [len(labels), len(labels) + 1, len(labels) + 2]
    x = torch.stack([*rows, *(-row for row in rows[::3])])
    y = torch.tensor([*labels, *labels[::3]])  # each anchor's positive is opposite
    raw = Distance(normalize=False)
    a, _, n = batch_hard(x, y, distance=raw)
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.masked_fill(y[:, None] == y, torch.inf).min(1)[0][a]
    torch.testing.assert_close(distances[a, n], nearest, rtol=0, atol=1e-7)


def test_semi_hard_without_an_upper_bound_leaves_out_pairs_without_a_farther_negative() -> None:
    x = torch.tensor([[0.0], [5.0], [1.0], [2.0]])
    raw = Distance(normalize=False)
    a, p, n = semi_hard(x, torch.tensor([0, 0, 1, 1]), distance=raw, margin=torch.inf)
    # 0 and 5 have no negative beyond each other.
    assert (a.tolist(), p.tolist(), n.tolist()) == ([2, 3], [3, 2], [1, 0])


def test_a_draw_picks_by_weight_and_never_a_column_of_weight_0() -> None:
    weights = torch.tensor([[0.0, 1.0, 3.0, 0.0]], dtype=torch.float64).repeat(5, 1)
    draws = torch.tensor([0.0, 0.2499, 0.25, 0.9999, 1.0], dtype=torch.float64)
    assert _pick(weights, draws).tolist() == [1, 1, 2, 2, 2]


def test_a_negative_at_the_very_margin_is_not_semi_hard() -> None:
    x, labels = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64), torch.tensor([0, 0, 1])
    raw = Distance(normalize=False)
    for miner in (semi_hard, semi_hard_all):
        assert len(miner(x, labels, distance=raw, margin=2.0, anchors=1)[0]) == 0
        assert len(miner(x, labels, distance=raw, margin=2.5, anchors=1)[0]) == 1


def test_an_anchor_whose_negatives_are_all_far_draws_among_them_evenly() -> None:
    # At distances of 1.5 and 1.95 from the anchor, whose densities differ by a factor of hundreds.
    near, far = (1 - d**2 / 2 for d in (1.5, 1.95))
    rows = [[1.0, *[0.0] * 15] for _ in range(401)]
    rows += [[c, (1 - c**2) ** 0.5, *[0.0] * 14] for c in (near, far)]
    labels = torch.tensor([0] * 401 + [1, 2])
    g = torch.Generator().manual_seed(0)
    a, _, n = distance_weighted(torch.tensor(rows), labels, generator=g, anchors=1)
    assert len(a) == 400
    assert abs((n == 401).float().mean().item() - 0.5) < 5 * 0.5 / 400**0.5
