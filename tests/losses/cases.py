"""Every ranking loss of labels beside its oracle, with one signature."""

import math
from collections.abc import Callable
from itertools import product
from typing import Literal, NamedTuple

import torch
from oracles import losses as oracle
from oracles.mining import all_triplets as triplets_by_loops
from torch import Tensor

from selfsup.losses.measures import Distance
from selfsup.losses.npairs import angular, angular_n_pairs, n_pairs, n_pairs_angular
from selfsup.losses.pairs import Reduction, generalized_lifted, lifted_structure, pair_contrastive
from selfsup.losses.proxies import arcface, cosface, proxy_anchor
from selfsup.losses.similarity import circle, class_nt_xent, multi_similarity, supcon
from selfsup.losses.triplet import angular_hinge, triplet_margin, triplet_soft, triplet_windows
from selfsup.mining.distances import all_triplets, batch_hard
from selfsup.mining.multi_similarity import multi_similarity_pairs

Rows = list[list[float]]
Ours = Callable[[Tensor, Tensor, int | None], Tensor]
Theirs = Callable[[Rows, list[int], int | None], float]
Kind = Literal["euclidean", "squared", "cosine"]

PROXIES = [[0.3, -1.2, 0.5], [1.0, 0.4, -0.2], [-0.7, 0.1, 0.9], [0.2, 0.8, 0.8]]


class Case(NamedTuple):
    ours: Ours
    theirs: Theirs
    anchors: bool
    """Whether it can have fewer anchors than rows."""


CASES: dict[str, Case] = {}


def proxies(width: int) -> Rows:
    return [(row * width)[:width] for row in PROXIES]


def proxies_like(x: Tensor) -> Tensor:
    return torch.tensor(proxies(x.shape[1]), dtype=torch.promote_types(x.dtype, torch.float32))


def add_distances(kind: Kind, unit: bool) -> None:
    d = Distance(kind, unit)

    def pairs_of(squared: bool, reduction: Reduction) -> None:
        margins = (0.1, 0.8)
        CASES[f"contrastive {kind} {unit} {squared} {reduction}"] = Case(
            lambda x, y, n: pair_contrastive(
                x,
                y,
                distance=d,
                positive_margin=margins[0],
                negative_margin=margins[1],
                squared=squared,
                reduction=reduction,
                anchors=n,
            ),
            lambda x, y, n: oracle.contrastive(x, y, kind, unit, *margins, squared, reduction, n),
            True,
        )

    reductions: tuple[Reduction, ...] = ("pairs", "sides", "active")
    for squared, reduction in product((False, True), reductions):
        pairs_of(squared, reduction)
    CASES[f"lifted {kind} {unit}"] = Case(
        lambda x, y, n: lifted_structure(x, y, distance=d, margin=1.0),
        lambda x, y, n: oracle.lifted(x, y, kind, unit, 1.0),
        False,
    )
    CASES[f"generalized lifted {kind} {unit}"] = Case(
        lambda x, y, n: generalized_lifted(x, y, distance=d, margin=1.0, anchors=n),
        lambda x, y, n: oracle.generalized_lifted(x, y, kind, unit, 1.0, n),
        True,
    )
    for active in (False, True):
        add_triplets(d, active)
    CASES[f"semi-hard all {kind} {unit}"] = Case(
        lambda x, y, n: triplet_windows(
            x, y, distance=d, margin=0.7, semi_hard=True, active_only=True, anchors=n
        )[0],
        lambda x, y, n: oracle.semi_hard_all(x, y, kind, unit, 0.7, "active", n),
        True,
    )
    CASES[f"batch-hard soft {kind} {unit}"] = Case(
        lambda x, y, n: triplet_soft(x, batch_hard(x, y, distance=d, anchors=n), distance=d),
        lambda x, y, n: oracle.batch_hard_triplet(x, y, kind, unit, None, "mean", n),
        True,
    )


def add_triplets(d: Distance, active: bool) -> None:
    reduction = "active" if active else "mean"
    CASES[f"batch-all {d.kind} {d.normalize} {reduction}"] = Case(
        lambda x, y, n: triplet_windows(
            x, y, distance=d, margin=0.7, semi_hard=False, active_only=active, anchors=n
        )[0],
        lambda x, y, n: oracle.batch_all(x, y, d.kind, d.normalize, 0.7, reduction, n),
        True,
    )
    CASES[f"batch-hard {d.kind} {d.normalize} {reduction}"] = Case(
        lambda x, y, n: triplet_margin(
            x,
            batch_hard(x, y, distance=d, anchors=n),
            distance=d,
            margin=0.7,
            active_only=active,
        ),
        lambda x, y, n: oracle.batch_hard_triplet(x, y, d.kind, d.normalize, 0.7, reduction, n),
        True,
    )


KINDS: tuple[Kind, ...] = ("euclidean", "squared", "cosine")
for kind, unit in product(KINDS, (True, False)):
    add_distances(kind, unit)

CASES |= {
    "supcon": Case(
        lambda x, y, n: supcon(x, y, temperature=0.2, anchors=n),
        lambda x, y, n: oracle.supcon(x, y, 0.2, n),
        True,
    ),
    "class nt-xent": Case(
        lambda x, y, n: class_nt_xent(x, y, temperature=0.2, anchors=n),
        lambda x, y, n: oracle.class_nt_xent(x, y, 0.2, n),
        True,
    ),
    "multi-similarity": Case(
        lambda x, y, n: multi_similarity(x, y, alpha=2, beta=50, base=0.5, anchors=n),
        lambda x, y, n: oracle.multi_similarity(x, y, 2, 50, 0.5, None, n),
        True,
    ),
    "circle": Case(
        lambda x, y, n: circle(x, y, margin=0.25, gamma=16, anchors=n),
        lambda x, y, n: oracle.circle(x, y, 0.25, 16, n),
        True,
    ),
    "n-pairs raw": Case(
        lambda x, y, n: n_pairs(x, y, normalize=False, temperature=1, regularizer=0.3),
        lambda x, y, n: oracle.npairs(x, y, False, 1, 0.3),
        False,
    ),
    "n-pairs": Case(
        lambda x, y, n: n_pairs(x, y, normalize=True, temperature=0.2, regularizer=0),
        lambda x, y, n: oracle.npairs(x, y, True, 0.2),
        False,
    ),
    "angular": Case(
        lambda x, y, n: angular(x, y, degrees=40),
        lambda x, y, n: oracle.angular(x, y, 40),
        False,
    ),
    "angular n-pairs": Case(
        lambda x, y, n: angular_n_pairs(x, y, degrees=40),
        lambda x, y, n: oracle.angular_npairs(x, y, 40),
        False,
    ),
    "n-pairs + angular": Case(
        lambda x, y, n: n_pairs_angular(
            x, y, normalize=True, temperature=1, regularizer=0, degrees=40, weight=2
        ),
        lambda x, y, n: oracle.npairs_angular(x, y, 40, 2),
        False,
    ),
    "angular hinge": Case(
        lambda x, y, n: angular_hinge(x, all_triplets(y, anchors=n), degrees=20),
        lambda x, y, n: oracle.angular_hinge(x, y, 20, n),
        True,
    ),
    "arcface": Case(
        lambda x, y, n: arcface(x, y, proxies_like(x), margin=0.5, scale=8),
        lambda x, y, n: oracle.arcface(x, y, proxies(len(x[0])), 0.5, 8),
        False,
    ),
    "cosface": Case(
        lambda x, y, n: cosface(x, y, proxies_like(x), margin=0.35, scale=8),
        lambda x, y, n: oracle.cosface(x, y, proxies(len(x[0])), 0.35, 8),
        False,
    ),
    "proxy-anchor": Case(
        lambda x, y, n: proxy_anchor(x, y, proxies_like(x), margin=0.1, alpha=32),
        lambda x, y, n: oracle.proxy_anchor(x, y, proxies(len(x[0])), 0.1, 32),
        False,
    ),
}


def mined_multi_similarity(x: Tensor, y: Tensor, n: int | None) -> Tensor:
    mined = multi_similarity_pairs(x, y, epsilon=0.1, anchors=n)
    return multi_similarity(x, y, alpha=2, beta=50, base=0.5, anchors=n, pairs=mined)


def all_triplets_margin(x: Tensor, y: Tensor, n: int | None) -> Tensor:
    d = Distance()
    return triplet_margin(x, all_triplets(y, anchors=n), distance=d, margin=0.7)


def all_triplets_by_loops(x: Rows, y: list[int], n: int | None) -> float:
    each = oracle.triplet(x, triplets_by_loops(y, n), "euclidean", True, 0.7)
    if not each:
        raise ValueError("no triplet")
    return math.fsum(each) / len(each)


CASES["triplets listed"] = Case(all_triplets_margin, all_triplets_by_loops, True)
