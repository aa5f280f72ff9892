"""Collapse signs: numbers that tell from embeddings alone whether a run has gone flat.

Shape letters: n embeddings, d width.
"""

import torch
from torch import Tensor

from selfsup.numerics import at_least_float32, full_precision, normalize

FLAT_STD = 0.1
"""Below this share of the spread of a healthy sphere, embeddings are as good as equal."""
FEW_DIRECTIONS = 2.0
"""Below this effective rank, everything lies on one line."""


@torch.no_grad()
def collapse_signs(embeddings: Tensor) -> dict[str, float]:
    """Spread, rank and similarity of embeddings scaled to length 1. [n, d].

    Returns:
        std: mean over dimensions of the standard deviation, times sqrt(d); 1 when spread evenly
            over the sphere, 0 when all are equal.
        rank: effective rank, exp of the entropy of the normalised singular values of the centred
            embeddings (Roy & Vetterli 2007); at most min(n - 1, d).
        cosine: mean cosine of two different embeddings; 1 when all are equal.
    """
    with full_precision(embeddings):
        z = normalize(at_least_float32(embeddings))
        n, d = z.shape
        centred = z - z.mean(0)
        std = centred.square().mean(0).sqrt().mean() * d**0.5
        share = torch.linalg.svdvals(centred)
        share = share / share.sum().clamp(min=1e-12)
        rank = torch.exp(-(share * share.clamp(min=1e-12).log()).sum())
        cosine = (z.sum(0).square().sum() - z.square().sum()) / (n * (n - 1))
    return {"std": std.item(), "rank": rank.item(), "cosine": cosine.item()}


def warning(signs: dict[str, float]) -> str | None:
    """What a person should know about these signs, or None if all is well."""
    if signs["std"] < FLAT_STD:
        return (
            f"collapsed: embeddings are nearly equal (std {signs['std']:.3f} of a healthy 1, mean "
            f"cosine {signs['cosine']:.2f}); try a lower learning rate or a longer warm-up"
        )
    if signs["rank"] < FEW_DIRECTIONS:
        return (
            f"collapsing: embeddings lie along {signs['rank']:.1f} directions; try a lower "
            "learning rate or stronger views"
        )
    return None
