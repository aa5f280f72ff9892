"""Weighted k-nearest-neighbour classification of frozen features.

Shape letters: n features of the bank, q queries, r queries of a piece, d width, c classes, m
neighbours that were looked up.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from selfsup.core.seeds import generator
from selfsup.core.threads import job_slices, run_jobs, single_threaded
from selfsup.search.neighbours import nearest
from selfsup.search.products import MEMORY, comparable, products


class Vote(NamedTuple):
    """How neighbours vote."""

    k: int
    """How many do."""
    temperature: float
    """The smaller, the more the nearest ones count."""

    def __str__(self) -> str:
        """For a table."""
        return f"k {self.k}, T {self.temperature:g}"


PROTOCOLS: dict[str, list[Vote]] = {
    "lightly": [Vote(200, 0.1)],
    "moco": [Vote(200, 0.1)],
    "dino": [Vote(k, 0.07) for k in (10, 20, 100, 200)],
}
"""As these projects report it: lightly's benchmarks, MoCo's CIFAR-10 demonstration, DINO's and
DINOv2's evaluation."""


def knn_predict(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    *,
    k: int,
    temperature: float,
    memory: int = MEMORY,
) -> Tensor:
    """The class that `knn_votes` gives with one vote; int64 [q]."""
    return knn_votes(bank, labels, queries, votes=[Vote(k, temperature)], memory=memory)[0]


def knn_votes(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    *,
    votes: Sequence[Vote],
    precision: Literal["float32", "int8"] = "float32",
    memory: int = MEMORY,
) -> Tensor:
    """The class with the largest sum of exp(cosine / temperature) over the k nearest neighbours.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4. Features are scaled to
    length 1 and similarities are float32. k is clipped to the bank. Rows as near as the k-th share
    the places that are left, so that the order of the bank does not matter. Between classes of
    equal sum the smaller label wins.

    Args:
        bank: [n, d] features of labelled images.
        labels: [n] integers.
        queries: [q, d] features to classify; None classifies the bank, each row by all the others.
        votes: all of them are held on one search.
        precision: of the search, see `nearest`.
        memory: bytes to hold beside the features.

    Returns:
        int64 [votes, q], labels from the bank.

    Raises:
        ValueError: the bank is empty, or has one row where each is to be classified by the others;
            a feature is not finite.
    """
    alone = queries is None
    x, z = comparable(bank if queries is None else queries, bank, "cosine")
    classes, index = labels.unique(return_inverse=True)
    found = torch.empty(len(votes), len(x), dtype=torch.int64)
    most = max(vote.k for vote in votes)
    tied = torch.zeros(len(x), dtype=torch.bool)
    with single_threaded():
        # one more than votes: it shows whether the last place is shared
        for part in nearest(x, z, most + 1, alone=alone, precision=precision, memory=memory):
            for vote, row in zip(votes, found, strict=True):
                row[part.rows] = _winner(part.similar, index[part.places], vote, len(classes))
                tied[part.rows] |= _shares_last_place(part.similar, vote.k)
    again = tied.nonzero()[:, 0]

    def settle(piece: slice) -> None:
        some = again[piece]
        similar = products(x[some], z)
        if alone:
            similar[torch.arange(len(some)), some] = -torch.inf
        for vote, row in zip(votes, found, strict=True):
            row[some] = _winner_of_all(similar, index, vote, len(classes), len(z) - alone)

    run_jobs(job_slices(len(again), 256, memory // (16 * len(z))), settle)
    predicted: Tensor = classes[found]
    return predicted


def _shares_last_place(similar: Tensor, k: int) -> Tensor:
    """Whether a row that does not vote is as near as the last one that does. [r, m] -> [r]."""
    if k >= similar.shape[1]:
        return torch.zeros(len(similar), dtype=torch.bool)
    return similar[:, k - 1] == similar[:, k]


def _winner(similar: Tensor, classes: Tensor, vote: Vote, c: int) -> Tensor:
    """Of neighbours in order. [r, m], [r, m] -> [r]."""
    near = similar[:, : vote.k]
    weight = ((near - near[:, :1]) / vote.temperature).exp()  # scaled by the first: no overflow
    sums = torch.zeros(len(near), c).scatter_add_(1, classes[:, : vote.k], weight)
    return sums.argmax(1)


def _winner_of_all(similar: Tensor, classes: Tensor, vote: Vote, c: int, available: int) -> Tensor:
    """Of the whole bank, those as near as the k-th sharing the places that are left. [r, n]."""
    k = min(vote.k, available)
    top = similar.topk(k, dim=1).values
    last = top[:, -1:]
    above, equal = similar > last, similar == last
    share = (k - above.sum(1, keepdim=True)) / equal.sum(1, keepdim=True)
    weight = ((similar - top[:, :1]) / vote.temperature).exp() * (above + equal * share)
    return torch.zeros(len(similar), c).index_add_(1, classes, weight).argmax(1)


def few_shot(
    bank: Tensor, labels: Tensor, queries: Tensor, *, shots: int, draws: int, vote: Vote, seed: int
) -> Tensor:
    """Predictions with `shots` images a class as the bank, drawn anew each time. [draws, q].

    Raises:
        ValueError: a class has fewer images than that.
    """
    classes, counts = labels.unique(return_counts=True)
    if int(counts.min()) < shots:
        least = int(classes[counts.argmin()])
        raise ValueError(f"{shots} shots: class {least} has {int(counts.min())} images")
    found = []
    for draw in range(draws):
        order = torch.randperm(len(labels), generator=generator(seed, draw, "shots"))
        of_class = [order[labels[order] == label][:shots] for label in classes]
        rows = torch.cat(of_class)
        found.append(knn_votes(bank[rows], labels[rows], queries, votes=[vote])[0])
    return torch.stack(found)
