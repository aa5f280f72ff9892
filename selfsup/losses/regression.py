"""Losses without negatives: one view predicts the embedding of the other.

Shape letters: n images, d embedding width.
"""

import torch
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import COSINE


def cosine_regression(p: Tensor, z: Tensor) -> Tensor:
    """BYOL: squared distance of predictions to targets, both at length 1 (equation 2).

    The mean over n rows of |p - z|^2 = 2 - 2 cos(p, z).

    Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733. The paper adds the same with the
    views exchanged: 4 - 2 (cos + cos) in all.

    Args:
        p: [n, d] predictions, in any scale.
        z: [n, d] targets; they get no gradient.

    Returns:
        Scalar from 0 to 4. Collapsed: 0, its minimum, with gradient zero.

    Example:
        >>> p, z = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> round(cosine_regression(p, z).item(), 3)
        2.0
    """
    return 2 + 2 * negative_cosine(p, z)


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """SimSiam: minus the mean cosine of predictions and targets (equation 1).

    Source: Chen & He 2021, https://arxiv.org/abs/2011.10566. The paper takes the mean of this and
    the same with the views exchanged.

    Args:
        p: [n, d] predictions, in any scale.
        z: [n, d] targets; they get no gradient.

    Returns:
        Scalar from -1 to 1. Collapsed: -1, its minimum, with gradient zero.

    Raises:
        ValueError: predictions and targets differ in shape.

    Example:
        >>> p, z = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.0]])
        >>> round(negative_cosine(p, z).item(), 3)
        -0.707
    """
    if p.shape != z.shape:
        raise ValueError(f"predictions {tuple(p.shape)} and targets {tuple(z.shape)} differ")
    with full_precision(p):
        cosines: Tensor = (COSINE.prepare(p) * COSINE.prepare(z.detach())).sum(1)
        return -torch.mean(cosines)
