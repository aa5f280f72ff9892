"""SIGReg: prevent collapse by making embeddings normally distributed in every direction.

Shape letters: n images, v views, d embedding width, m directions, p points.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import at_least_float32, full_precision, normalize
from selfsup.losses.row_blocks import split_rows

POINTS, LIMIT = 17, 5.0  # the paper's grid of the integral


def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """SIGReg: distance of embeddings from a standard normal, along random directions.

    The mean over directions of the Epps-Pulley statistic of the projections x = z . direction:
    n x integral over t of |1/n sum of exp(i t x) - exp(-t^2 / 2)|^2 exp(-t^2 / 2), by the
    trapezoidal rule over 17 points from -5 to 5.

    Source: Balestriero & LeCun 2025, https://arxiv.org/abs/2511.08544, section 4 and algorithm 1.
    No matrix of n x m x p is held: directions are processed in blocks, and the gradient is computed
    along with the value.

    Args:
        z: [n, d] embeddings, as they are; or [n, v, d] of v views, whose mean is computed.
        directions: [m, d], in any scale.

    Returns:
        Scalar, at least 0; about 1.06 for rows that are standard normal, growing with n for
        others. Collapsed at 0: 0.41 n, with gradient zero.

    Example:
        >>> round(sigreg(torch.zeros(10, 2), torch.eye(2)).item(), 2)  # collapsed
        4.09
    """
    with full_precision(z):
        views = at_least_float32(z if z.ndim == 3 else z[:, None])
        statistic: Tensor = _Sliced.apply(views, normalize(directions.to(z.device)))
        return statistic


class _Sliced(torch.autograd.Function):
    """S(z) = 1/m sum over directions u of EP(z u); gradient 1/m sum over u of EP'(z u) u'.

    EP and EP' are `_epps_pulley`'s, of each column by itself, so that the projections of v views
    are v m columns. Both are computed in forward; backward multiplies by a number.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, directions: Tensor) -> Tensor:
        directions, rows = directions.to(z.dtype), z.flatten(0, 1)  # [nv, d]
        total, gradient = z.new_zeros(()), torch.zeros_like(rows)
        for block in split_rows(len(directions), len(rows), z.device):
            u = directions[block]
            value, slope = _epps_pulley((rows @ u.T).view(len(z), -1))
            total += value
            gradient.addmm_(slope.view(len(rows), -1), u)
        columns = len(directions) * z.shape[1]
        ctx.save_for_backward(gradient.view_as(z) / columns)
        return total / columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grad_outputs[0], None


def _epps_pulley(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the statistic over columns, and its gradient. [n, m] -> scalar, [n, m].

    The integrand is even, so points below 0 count with those above.
    """
    n = len(x)
    total, slope = x.new_zeros(()), torch.zeros_like(x)
    step = 2 * LIMIT / (POINTS - 1)
    for i in range(POINTS // 2 + 1):
        t = i * step
        normal = math.exp(-t * t / 2)
        # both ends of the trapezoidal rule count half, and all but the middle point twice
        weight = step * normal * (1 if i in (0, POINTS // 2) else 2)
        angle = x * t
        cos, sin = angle.cos(), angle.sin()
        real, imaginary = cos.mean(0) - normal, sin.mean(0)
        total += n * weight * (real.square() + imaginary.square()).sum()
        slope.add_(cos.mul_(imaginary).sub_(sin.mul_(real)), alpha=2 * weight * t)
    return total, slope


def lejepa(z: Tensor, directions: Tensor, *, centres: int, weight: float) -> Tensor:
    """LeJEPA: views predict their image's centre, and embeddings are normal (algorithm 2).

    (1 - weight) x mean over views, images and dimensions of (centre - z)^2, the centre being the
    mean of the first `centres` views, + weight x mean over views of `sigreg`.

    Source: Balestriero & LeCun 2025, https://arxiv.org/abs/2511.08544, equation 6.

    Args:
        z: [n, v, d] embeddings, as they are.
        directions: [m, d], the same for all views.
        centres: how many of the first views make the centre (the global ones).
        weight: of the regulariser, lambda in the paper.

    Returns:
        Scalar, at least 0.

    Example:
        >>> z = torch.tensor([[[1.0], [3.0]]])  # one image, two views, their centre at 2
        >>> round(lejepa(z, torch.eye(1), centres=2, weight=0.05).item(), 3)
        1.069
    """
    with full_precision(z):
        z = at_least_float32(z)
        centre = z[:, :centres].mean(1, keepdim=True)
        prediction = (centre - z).square().mean()
        # of all views at once on a GPU: its cost is launches; on a CPU one view stays in its cache
        groups = z.unbind(1) if z.device.type == "cpu" else [z]
        normal = torch.stack([sigreg(group, directions) for group in groups]).mean()
        return (1 - weight) * prediction + weight * normal
