"""Weighted k-nearest-neighbour classification of frozen features.

Shape letters: n features of the bank, q queries, r queries of a block, d width, c classes, m
neighbours that were searched.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.config import KNNConfig
from selfsup.core.labels import class_labels
from selfsup.core.seeds import generator
from selfsup.core.threads import job_slices, run_jobs, single_threaded
from selfsup.search.neighbours import nearest
from selfsup.search.products import MEMORY, comparable, products


class Vote(NamedTuple):
    """The settings of a vote."""

    k: int
    """Neighbours that vote."""
    temperature: float
    """The lower, the more the nearest ones count."""

    def __str__(self) -> str:
        """Name the setting in a table."""
        return f"k {self.k}, T {self.temperature:g}"


PROTOCOLS: dict[str, list[Vote]] = {
    "lightly": [Vote(200, 0.1)],
    "moco": [Vote(200, 0.1)],
    "dino": [Vote(k, 0.07) for k in (10, 20, 100, 200)],
}
"""The votes of lightly's benchmarks, MoCo's CIFAR-10 demonstration, and DINO's and DINOv2's
evaluation."""


def votes_from(config: KNNConfig) -> list[Vote]:
    """Every k with every temperature, or the protocol's votes."""
    if config.protocol:
        return PROTOCOLS[config.protocol]
    return [Vote(k, t) for t in config.temperature for k in config.k]


def knn_predict(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    *,
    k: int,
    temperature: float,
    rows: slice | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """Classify with one vote (see `knn_votes`); int64 [q].

    >>> import torch
    >>> bank, labels = torch.eye(3), torch.tensor([7, 8, 9])
    >>> knn_predict(bank, labels, torch.tensor([[0.1, 0.9, 0.2]]), k=1, temperature=0.1)
    tensor([8])
    """
    votes = [Vote(k, temperature)]
    return knn_votes(bank, labels, queries, votes=votes, rows=rows, memory=memory)[0]


def knn_votes(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    *,
    votes: Sequence[Vote],
    rows: slice | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """Predict the class with the largest sum of exp(cosine / temperature) over k neighbours.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4. Features are scaled to
    length 1 and similarities are float32. k is clipped to the bank. Rows that tie for the last
    place share it, so that the order of the bank does not matter. Between classes of equal sum the
    smaller label wins. The search is done on the features' device.

    Args:
        bank: [n, d] features of labelled images.
        labels: [n] integers.
        queries: [q, d] features to classify; None classifies the bank, each row by all the others.
        votes: settings; one search serves all of them.
        rows: without queries, which rows of the bank to classify; None for all.
        memory: bytes to hold besides the features.

    Returns:
        int64 [votes, q], labels from the bank, on the CPU.

    Raises:
        ValueError: the bank is empty, or has one row where each is to be classified by the others;
            a feature is not finite.
    """
    exclude_self = queries is None
    x, z = comparable(bank if queries is None else queries, bank, "cosine")
    first = 0 if rows is None else rows.start
    x = x if rows is None else x[rows]
    classes, index = class_labels(labels).cpu().unique(return_inverse=True)
    winners = torch.empty(len(votes), len(x), dtype=torch.int64)
    most = max(vote.k for vote in votes)
    tied = torch.zeros(len(x), dtype=torch.bool)
    with single_threaded():
        # one more than votes: it shows whether several rows tie for the last place
        search = nearest(x, z, most + 1, exclude_self=exclude_self, first=first, memory=memory)
        for block in search:
            voters = index[block.indices]
            for vote, winner in zip(votes, winners, strict=True):
                winner[block.rows] = _winner(block.similarity, voters, vote, len(classes))
                tied[block.rows] |= _last_place_is_tied(block.similarity, vote.k)
    tied_rows = tied.nonzero()[:, 0]

    def vote_again(which: slice) -> None:
        """Vote with the whole bank, where ties have to share a place."""
        rows = tied_rows[which]
        similarity = products(x[rows.to(x.device)], z).cpu()
        if exclude_self:
            similarity[torch.arange(len(rows)), first + rows] = -torch.inf
        for vote, winner in zip(votes, winners, strict=True):
            winner[rows] = _winner_of_all(
                similarity, index, vote, len(classes), len(z) - exclude_self
            )

    run_jobs(job_slices(len(tied_rows), 256, memory // (16 * len(z))), vote_again)
    predictions: Tensor = classes[winners]
    return predictions


def _last_place_is_tied(similarity: Tensor, k: int) -> Tensor:
    """Whether a row that does not vote is as near as the last one that does. [r, m] -> [r]."""
    if k >= similarity.shape[1]:
        return torch.zeros(len(similarity), dtype=torch.bool)
    return similarity[:, k - 1] == similarity[:, k]


def _winner(similarity: Tensor, classes: Tensor, vote: Vote, c: int) -> Tensor:
    """The class that sorted neighbours elect. [r, m], [r, m] -> [r]."""
    voting = similarity[:, : vote.k]
    weight = ((voting - voting[:, :1]) / vote.temperature).exp()  # scaled by the first: no overflow
    sums = torch.zeros(len(voting), c).scatter_add_(1, classes[:, : vote.k], weight)
    return sums.argmax(1)


def _winner_of_all(
    similarity: Tensor, classes: Tensor, vote: Vote, c: int, available: int
) -> Tensor:
    """The class that a whole bank elects, ties sharing the last places. [r, n], [n] -> [r].

    With k = 2 and similarities 0.9, 0.5, 0.5, 0.5 one place is left for three rows: each of them
    votes with a third of its weight.
    """
    k = min(vote.k, available)
    # summed from the nearest on: in the order of the bank, sums would round in that order
    similarity, order = similarity.sort(dim=1, descending=True)
    top = similarity[:, :k]
    last = top[:, -1:]
    above, equal = similarity > last, similarity == last
    fraction = (k - above.sum(1, keepdim=True)) / equal.sum(1, keepdim=True)
    weight = ((similarity - top[:, :1]) / vote.temperature).exp() * (above + equal * fraction)
    return torch.zeros(len(similarity), c).scatter_add_(1, classes[order], weight).argmax(1)


def few_shot(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    shots: int,
    draws: int,
    vote: Vote,
    seed: int,
    memory: int = MEMORY,
) -> Tensor:
    """Classify queries by `shots` labelled images of each class, `draws` times with other images.

    Args:
        bank: [n, d] features of the labelled images.
        labels: [n], theirs.
        queries: [q, d] features to classify.
        shots: images of each class in a draw.
        draws: how often images are drawn.
        vote: neighbours and temperature.
        seed: chooses the images.
        memory: bytes to hold besides the features.

    Returns:
        int64 [draws, q], labels, on the CPU.

    Raises:
        ValueError: a class has fewer than `shots` images, or a feature is not finite.
    """
    labels = class_labels(labels)
    classes, counts = labels.unique(return_counts=True)
    if int(counts.min()) < shots:
        least = int(classes[counts.argmin()])
        raise ValueError(f"{shots} shots: class {least} has {int(counts.min())} images")
    predictions = []
    for draw in range(draws):
        order = torch.randperm(len(labels), generator=generator(seed, draw, "shots"))
        of_class = [order[labels[order] == label][:shots] for label in classes]
        rows = torch.cat(of_class)
        few, their_labels = bank[rows.to(bank.device)], labels[rows]
        predictions.append(knn_votes(few, their_labels, queries, votes=[vote], memory=memory)[0])
    return torch.stack(predictions)
