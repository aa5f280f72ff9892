"""Collapse signs: figures of embeddings that show whether a run has collapsed.

Shape letters: n embeddings, d width.
"""

import math

import torch
from torch import Tensor

from selfsup.core.errors import require
from selfsup.core.numerics import (
    at_least_float32,
    full_precision,
    normalize,
    singular_values,
    with_float64,
)
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Relations

COMPARED_IMAGES = 1024
"""Of a batch, when its views are compared."""
LARGEST_GAP = 1e3
"""Of classes whose distances do not vary at all."""


@torch.no_grad()
def collapse_signs(embeddings: Tensor) -> dict[str, float]:
    """Compute spread, rank and similarity of embeddings scaled to length 1. [n, d].

    Returns:
        std: mean over dimensions of the standard deviation, times sqrt(d); 1 when spread evenly
            over the sphere, 0 when all are equal.
        rank: effective rank, exp of the entropy of the normalised singular values of the centred
            embeddings (Roy & Vetterli 2007); at most min(n - 1, d).
        cosine: mean cosine of two different embeddings; 1 when all are equal, 0 of a single one.

    Raises:
        UserError: an embedding is not finite.
    """
    _require_finite(embeddings)
    with full_precision(embeddings):
        z = normalize(at_least_float32(embeddings))
        n, d = z.shape
        centred = z - z.mean(0)
        std = centred.square().mean(0).sqrt().mean() * d**0.5
        singular = singular_values(centred)
        fractions = singular / singular.sum().clamp(min=1e-12)
        rank = torch.exp(-(fractions * fractions.clamp(min=1e-12).log()).sum())
        cosine = (z.sum(0).square().sum() - z.square().sum()) / max(1, n * (n - 1))
    return {"std": std.item(), "rank": rank.item(), "cosine": cosine.item()}


@torch.no_grad()
def pair_signs(embeddings: Tensor, labels: Tensor, distance: Distance) -> dict[str, float]:
    """Compare pairs of one class with pairs of two. [n, d], [n].

    Returns:
        positive, negative: mean distance of pairs of one class and of two classes.
        gap: how far negatives are beyond positives, in standard deviations (d'): the difference of
            the means over the root of the mean variance, 1000 at most. It does not depend on how
            near all embeddings are to each other; 0: classes cannot be told apart.
        nearest: fraction of the rows with a positive whose nearest row is one; ties count against.

    Raises:
        UserError: an embedding is not finite.
    """
    _require_finite(embeddings)
    embeddings = with_float64(embeddings)
    relations = Relations(labels, device=embeddings.device)
    z = distance.prepare(embeddings)
    sums = z.new_zeros(2, 2, dtype=torch.float64)
    right = 0
    for _, distances, *masks in relations.compare_blocks(z, distance):
        kept = [distances.masked_fill(~mask, 0).double() for mask in masks]
        sums += torch.stack([torch.stack([x.sum(), x.square().sum()]) for x in kept])
        same, other = (distances.masked_fill(~mask, math.inf).amin(1) for mask in masks)
        right += int((same < other).sum())
    counts = torch.stack(relations.counts())
    positive, negative = (sums.cpu() / counts.sum(1, keepdim=True).clamp(min=1)).tolist()
    spread = math.sqrt(max(0.0, (_variance(*positive) + _variance(*negative)) / 2))
    apart = negative[0] - positive[0] if counts.sum(1).min() > 0 else 0.0
    return {
        "positive": positive[0],
        "negative": negative[0],
        "gap": _in_deviations(apart, spread),
        "nearest": right / max(1, int((counts[0] > 0).sum())),
    }


def _require_finite(embeddings: Tensor) -> None:
    broken = int((~embeddings.isfinite().all(1)).sum())
    require(
        broken == 0,
        f"{broken} of {len(embeddings)} embeddings of the batch are not finite: the weights are "
        "broken, or --optim.lr is too high",
    )


def _in_deviations(difference: float, spread: float) -> float:
    """The quotient, at most `LARGEST_GAP` of either sign, also where the spread is 0."""
    if abs(difference) < LARGEST_GAP * spread:
        return difference / spread
    return math.copysign(LARGEST_GAP, difference) if difference else 0.0


def _variance(mean: float, mean_square: float) -> float:
    return mean_square - mean**2


def view_signs(first: Tensor, second: Tensor) -> dict[str, float]:
    """Compare two views of one image with views of two images. [n, d] each.

    At most `COMPARED_IMAGES` images are compared, so that a large batch does not wait.

    Returns:
        gap, nearest: as in `pair_signs`, of cosine distances, with each image a class.
    """
    both = torch.cat([first[:COMPARED_IMAGES], second[:COMPARED_IMAGES]])
    images = torch.arange(len(both) // 2).repeat(2)
    signs = pair_signs(both, images, Distance("cosine"))
    return {name: signs[name] for name in ("gap", "nearest")}
