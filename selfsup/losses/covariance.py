"""Losses that keep embeddings apart by what their dimensions share, not by negatives.

Covariances are of the whole global batch. Shape letters: n images, d embedding width.
"""

from torch import Tensor

from selfsup.core.numerics import at_least_float32, full_precision
from selfsup.losses.measures import COSINE


def barlow_twins(
    a: Tensor, b: Tensor, *, off_diagonal: float, scale: float = 1.0, eps: float = 1e-5
) -> Tensor:
    """Make the correlation of two views' dimensions the identity (equations 1 and 2).

    scale x (sum over i of (1 - C_ii)^2 + off_diagonal x sum over i != j of C_ij^2), where C_ij is
    the mean over the batch of a's dimension i times b's dimension j, each standardised over it.

    Source: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230. The deviation is that of n, not
    n - 1, and `eps` is added to its square as in the paper's code, whose scale is 0.024.

    Args:
        a: [n, d] embeddings of the first views.
        b: [n, d] embeddings of the second views; row i is the image of `a[i]`.
        off_diagonal: weight of different dimensions.
        scale: of the whole.
        eps: added to variances.

    Returns:
        Scalar, at least 0. Collapsed: scale x d, with gradient zero.

    Raises:
        ValueError: the views differ in shape or hold one image.
    """
    _check(a, b)
    n = len(a)
    with full_precision(a):
        one, other = (_standardize(at_least_float32(x), eps) for x in (a, b))
        square = (one.T @ other / n).square()  # [d, d], only its diagonal is wanted as it is
        same = ((one * other).mean(0) - 1).square().sum()
        return scale * (same + off_diagonal * (square.sum() - square.diagonal().sum()))


def _standardize(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(0)
    return centred / (centred.square().mean(0) + eps).sqrt()


def vicreg(
    a: Tensor,
    b: Tensor,
    *,
    invariance: float,
    variance: float,
    covariance: float,
    eps: float = 1e-4,
) -> Tensor:
    """Variance, invariance and covariance of two views (equations 1 to 6).

    invariance x mean over n and d of (a - b)^2 + variance x mean over both views and d of
    [1 - sqrt(var + eps)]+ + covariance x sum over both views of 1/d sum over i != j of cov_ij^2.

    Source: Bardes et al. 2022, https://arxiv.org/abs/2105.04906. As in the paper's code the first
    term is divided by d, and the second is the mean of the views, not their sum as in equation 6.
    Variances and covariances are those of n - 1.

    Args:
        a: [n, d] embeddings of the first views.
        b: [n, d] embeddings of the second views; row i is the image of `a[i]`.
        invariance: weight of the distance.
        variance: weight of the deviations below 1.
        covariance: weight of the covariances.
        eps: added to variances.

    Returns:
        Scalar, at least 0. Collapsed: variance x (1 - sqrt(eps)), with gradient zero.

    Raises:
        ValueError: the views differ in shape or hold one image.
    """
    _check(a, b)
    with full_precision(a):
        a, b = at_least_float32(a), at_least_float32(b)
        total = invariance * (a - b).square().mean()
        for x in (a, b):
            centred = x - x.mean(0)
            each = centred.square().sum(0) / (len(x) - 1)
            total = total + variance / 2 * (1 - (each + eps).sqrt()).relu().mean()
            square = (centred.T @ centred / (len(x) - 1)).square()
            total = total + covariance * (square.sum() - square.diagonal().sum()) / x.shape[1]
        return total


def tico(a: Tensor, b: Tensor, *, second_moment: Tensor, rho: float) -> Tensor:
    """Pull two views together and away from the directions that all embeddings share.

    The mean over n of 1 - a_i.b_i + rho a_i' C a_i, all rows at length 1.

    Source: Zhu et al. 2022, https://arxiv.org/abs/2206.10698. C is the moving average that
    `moving_second_moment` makes, this batch within it, through which there is a gradient too, as in
    the paper's pseudo-code.

    Args:
        a: [n, d] embeddings of the first views, in any scale.
        b: [n, d] a teacher's embeddings of the second views; they get no gradient.
        second_moment: [d, d], C.
        rho: weight of the contrast.

    Returns:
        Scalar. Collapsed for long: rho, with gradient zero.

    Raises:
        ValueError: the views differ in shape or hold one image.
    """
    _check(a, b)
    with full_precision(a):
        one, other = COSINE.prepare(a), COSINE.prepare(b.detach())
        apart = 1 - (one * other).sum(1).mean()
        return apart + rho * ((one @ second_moment) * one).sum(1).mean()


def moving_second_moment(a: Tensor, before: Tensor, *, beta: float) -> Tensor:
    """The second moment, rows at length 1, as a moving average. [n, d], [d, d] -> [d, d].

    beta x before + (1 - beta) / n x sum of a_i a_i'.
    """
    with full_precision(a):
        z = COSINE.prepare(a)
        return beta * before.to(z.dtype) + (1 - beta) / len(z) * (z.T @ z)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"views differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if len(a) < 2:
        raise ValueError("a batch of one image has no variance; the loss needs 2 or more")
