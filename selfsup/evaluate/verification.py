"""Verification: are two images of the same thing, decided by a threshold on their similarity.

A pair is accepted when its similarity is above the threshold.

Shape letters: p pairs.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.core.errors import UserError, did_you_mean
from selfsup.core.labels import class_labels
from selfsup.core.seeds import generator
from selfsup.data.sources import Source
from selfsup.encoders.thresholds import SIZES
from selfsup.evaluate.features import Features


class OperatingPoint(NamedTuple):
    """A threshold and its rates."""

    threshold: float
    """On the similarity; above it a pair is accepted."""
    tar: float
    """True accept rate: fraction of the pairs of one label that are accepted."""
    far: float
    """False accept rate: fraction of the pairs of two labels that are accepted."""


class Curve:
    """The ROC of pairs: true against false accept rate, over all thresholds."""

    def __init__(self, similarity: Tensor, same: Tensor) -> None:
        """Take similarities [p] and whether each pair is of one label [p].

        Raises:
            ValueError: there are no pairs of one label, or none of two.
        """
        score, truth = similarity.double().numpy(), same.numpy().astype(bool)
        self.true, self.false = np.sort(score[truth])[::-1], np.sort(score[~truth])[::-1]
        if not len(self.true) or not len(self.false):
            raise ValueError(
                f"{len(self.true)} pairs of one label and {len(self.false)} of two labels: "
                "both are needed"
            )

    def at(self, threshold: float) -> OperatingPoint:
        """Compute the rates of a threshold."""
        tar, far = (
            float(np.searchsorted(-scores, -threshold, side="left") / len(scores))
            for scores in (self.true, self.false)
        )
        return OperatingPoint(threshold, tar, far)

    def at_far(self, target: float) -> OperatingPoint:
        """Find the lowest threshold whose false accept rate does not exceed the target.

        It is the similarity of the first false pair that may no longer be accepted; with ties none
        of those equal to it are.
        """
        allowed = int(np.floor(target * len(self.false) + 1e-9))
        if allowed >= len(self.false):
            return self.at(-np.inf)
        return self.at(float(self.false[allowed]))

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """False and true accept rates, both from 0 to 1, and the similarity accepted from there."""
        scores = np.unique(np.concatenate([self.true, self.false]))[::-1]
        rates = [
            np.r_[0.0, np.searchsorted(-kind, -scores, side="right") / len(kind)]
            for kind in (self.false, self.true)
        ]
        return rates[0], rates[1], np.r_[np.inf, scores]

    @property
    def auc(self) -> float:
        """Chance that a pair of one label is more similar than one of two; of equal ones half."""
        below = np.searchsorted(self.false[::-1], self.true, side="left")
        upto = np.searchsorted(self.false[::-1], self.true, side="right")
        return float((below + upto).mean() / 2 / len(self.false))

    @property
    def eer(self) -> float:
        """Where false accepts and false rejects are as frequent, on the ROC's straight lines."""
        far, tar, _ = self.points()
        gap = far + tar - 1  # grows from -1 to 1
        i = int(np.argmax(gap >= 0))
        fraction = -gap[i - 1] / (gap[i] - gap[i - 1])
        return float(far[i - 1] + fraction * (far[i] - far[i - 1]))


def fold_accuracies(similarity: Tensor, same: Tensor, folds: int = 10) -> Tensor:
    """Compute each fold's accuracy with the best threshold of the others. float64 [folds].

    Fold i holds every folds-th pair from the i-th on. Of equally good thresholds the highest, just
    below the similarities that it accepts. Source: the protocol of LFW (Huang et al. 2007).

    Args:
        similarity: [p].
        same: bool [p].
        folds: how many; each needs a pair.

    Raises:
        ValueError: there are fewer pairs than folds, or fewer than two folds.
    """
    accuracies = []
    for held_out in _split_folds(len(similarity), folds):
        lowest = best_accepted(similarity[~held_out], same[~held_out])
        right = (similarity[held_out] >= lowest) == same[held_out]
        accuracies.append(right.double().mean())
    return torch.stack(accuracies)


def _split_folds(pairs: int, folds: int) -> Iterator[Tensor]:
    """Yield which pairs each fold holds, bool [p].

    Raises:
        ValueError: there are fewer pairs than folds, or fewer than two folds.
    """
    if folds < 2 or pairs < folds:
        raise ValueError(f"{pairs} pairs do not make {folds} folds of one and more")
    fold = torch.arange(pairs) % folds
    for i in range(folds):
        yield fold == i


def fold_balanced_accuracies(similarity: Tensor, same: Tensor, folds: int = 10) -> Tensor:
    """Compute each fold's balanced accuracy with the best threshold of the others.

    The mean of the fraction of accepted pairs of one label and of refused pairs of two: 1/2 for
    chance, whatever the mixture, where plain accuracy is the fraction of the larger kind. The folds
    are those of `fold_accuracies`; of a fold without pairs of a kind the other fraction is taken.

    Args:
        similarity: [p].
        same: bool [p].
        folds: how many; each needs a pair.

    Returns:
        float64 [folds].

    Raises:
        ValueError: there are fewer pairs than folds, or fewer than two folds.
    """
    accuracies = []
    for held_out in _split_folds(len(similarity), folds):
        rest = same[~held_out]
        weight = torch.where(rest, (~rest).sum(), rest.sum())  # whole numbers: sums are exact
        lowest = best_accepted(similarity[~held_out], rest, weight)
        right = (similarity[held_out] >= lowest) == same[held_out]
        kinds = [right[same[held_out]], right[~same[held_out]]]
        accuracies.append(torch.stack([k.double().mean() for k in kinds if len(k)]).mean())
    return torch.stack(accuracies)


def best_accepted(similarity: Tensor, same: Tensor, weight: Tensor | None = None) -> float:
    """Find the lowest similarity to accept for the best accuracy; infinite if none should be.

    `weight` int64 [p] is what each pair counts; None: 1.
    """
    scores, order = similarity.double().sort(descending=True)
    each = torch.ones_like(same, dtype=torch.int64) if weight is None else weight
    gain = torch.where(same, each, -each)[order].cumsum(0)
    last = torch.ones(len(scores), dtype=torch.bool)
    last[:-1] = scores[1:] != scores[:-1]  # equal ones are accepted together
    ends = last.nonzero()[:, 0]
    best = int(gain[ends].argmax())
    return float(scores[ends[best]]) if int(gain[ends[best]]) > 0 else float("inf")


def gallery_thresholds(curve: Curve, keep: float) -> dict[str, float]:
    """The threshold for each size of a gallery (`SIZES`), up to what the pairs can tell.

    Of a gallery of n images a query of something else accepts one with n times the chance of a
    pair, so its threshold is that of the false accept rate keep / n.
    """
    thresholds = {}
    for size in SIZES:
        thresholds[str(size)] = curve.at_far(keep / size).threshold
        if keep / size * len(curve.false) < 1:  # no pair may pass: the highest there is
            break
    return thresholds


def label_pairs(labels: Tensor, *, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make pairs of images from labels: all, or `most` of one label and as many of two at random.

    Returns:
        int64 [p, 2] of positions, the smaller first, none twice; bool [p], whether of one label.
    """
    draw = np.random.default_rng(seed)
    labels = class_labels(labels)
    order = labels.argsort(stable=True).numpy()
    counts = labels[torch.from_numpy(order)].unique_consecutive(return_counts=True)[1].numpy()
    ends = np.cumsum(counts)
    per_class = counts * (counts - 1) // 2
    number = _choose_numbers(int(per_class.sum()), most, draw)
    which = np.searchsorted(np.cumsum(per_class), number, side="right")
    i, j = _unrank_pair(number - (np.cumsum(per_class) - per_class)[which])
    starts = (ends - counts)[which]
    same_label = np.stack([starts + i, starts + j], 1)
    # in the order of labels, a row is of another label than all that come after its own
    end = np.repeat(ends, counts)
    later = np.cumsum(len(labels) - end)
    number = _choose_numbers(int(later[-1]) if len(later) else 0, most, draw)
    row = np.searchsorted(later, number, side="right")
    first = later[row] - (len(labels) - end[row])
    two_labels = np.stack([row, end[row] + number - first], 1)
    pairs = torch.from_numpy(np.sort(order[np.concatenate([same_label, two_labels])], 1)).long()
    return pairs, labels[pairs[:, 0]] == labels[pairs[:, 1]]


def _choose_numbers(total: int, most: int, draw: np.random.Generator) -> np.ndarray:
    """Draw `most` different numbers below the total, ascending; all if there are no more."""
    if total <= most:
        return np.arange(total)
    picked: np.ndarray = np.zeros(0, np.int64)
    while len(picked) < most:
        picked = np.unique(np.r_[picked, draw.integers(0, total, most)])
    return np.sort(draw.permutation(picked)[:most])


def _unrank_pair(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of pairs that are numbered (1, 0), (2, 0), (2, 1), (3, 0)..."""
    i = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    i -= i * (i - 1) // 2 > number  # where the root was rounded up
    i += (i + 1) * i // 2 <= number
    return i, number - i * (i - 1) // 2


class ListedPairs(NamedTuple):
    """Pairs that a file lists."""

    rows: Tensor
    """int64 [p, 2], rows of the features."""
    same: Tensor
    """bool [p]."""
    lost: int
    """Pairs of which an image could not be read."""


def read_pairs(file: str, source: Source, features: Features) -> ListedPairs:
    """Read a .csv of pairs with columns first, second (names of images) and same (1 or 0).

    Raises:
        UserError: the file cannot be read, or names images that the data do not have.
    """
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as opened:
            lines = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read --pairs {file}: {error}") from None
    if not lines or not {"first", "second", "same"} <= lines[0].keys():
        raise UserError(f"{file} must have columns first, second and same, and a row for each pair")
    position = {source.name(i): i for i in range(len(source))}
    row_of = {position: row for row, position in enumerate(features.positions.tolist())}
    pairs, same, lost = [], [], 0
    for number, line in enumerate(lines, start=2):
        for name in (line["first"], line["second"]):
            if name not in position:
                guess = did_you_mean(str(name), position)
                raise UserError(f"{file}, line {number}: the data have no image {name!r}{guess}")
        if line["same"] not in ("0", "1"):
            raise UserError(f"{file}, line {number}: same must be 1 or 0, not {line['same']!r}")
        pair = [row_of.get(position[line[key]]) for key in ("first", "second")]
        if None in pair:
            lost += 1
            continue
        pairs.append(pair)
        same.append(line["same"] == "1")
    rows = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    return ListedPairs(rows, torch.tensor(same, dtype=torch.bool), lost)


def shuffled(n: int, seed: int) -> Tensor:
    """A random order of n pairs."""
    return torch.randperm(n, generator=generator(seed, 0, "pairs"))
