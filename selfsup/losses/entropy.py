"""KoLeo: keep embeddings from gathering, by the distance to the nearest other one.

Shape letters: n images, d embedding width.
"""

import math

import torch
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Distance
from selfsup.losses.row_blocks import map_rows

EPSILON = 1e-8
"""Added to a distance, as in DINOv2's code: equal rows have a finite loss."""
EUCLIDEAN = Distance("euclidean")


def koleo(x: Tensor) -> Tensor:
    """KoLeo: minus the mean logarithm of the distance to the nearest other row, at length 1.

    -1/n sum over i of log(min over j != i of |x_i - x_j| + 1e-8), the estimator of the differential
    entropy by Kozachenko and Leonenko. Rows spread over the sphere.

    Source: Sablayrolles et al. 2019, https://arxiv.org/abs/1806.03198; Oquab et al.
    2023, https://arxiv.org/abs/2304.07193, section 4. Their code compares the images of one
    process; this is a function of the global batch.

    The matrix of distances is never held. Where a row's nearest is equal to it, the term has
    gradient 0; of several nearest rows the first has the gradient.

    Args:
        x: [n, d] embeddings, in any scale.

    Returns:
        Scalar. Collapsed: 18.42, with gradient 0.

    Raises:
        ValueError: there is only one row.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])  # each sqrt(2) from its nearest
        >>> round(koleo(x).item(), 4)
        -0.3466
    """
    if len(x) < 2:
        raise ValueError("KoLeo needs the distance to another image; use a batch of 2 or more")

    def log_nearest(distances: Tensor, block: slice) -> Tensor:
        row = torch.arange(block.start, block.stop, device=distances.device)
        own = torch.arange(distances.shape[1], device=distances.device) == row[:, None]
        nearest = distances.masked_fill(own, math.inf).min(1).values
        return -(nearest + EPSILON).log()

    with full_precision(x):
        z = EUCLIDEAN.prepare(x)
        return map_rows(z, z, EUCLIDEAN, log_nearest, equal_weights=True).mean()
