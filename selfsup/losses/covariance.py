"""Losses that prevent collapse by the covariance of dimensions, not by negatives.

Covariances are of the whole global batch.

TiCo needs more images than a batch has, so it keeps a moving average C of the second moment.
Example for one entry of C, at beta 0.9, first 0.5, where the mean of a a' of a batch is 1.0:

    step 1   C = 0.9 x 0.5  + 0.1 x 1.0 = 0.55   used by this batch's loss, with gradient through a
    step 2   C = 0.9 x 0.55 + 0.1 x 1.0 = 0.595  after k steps: 1 - 0.5 x 0.9^k
    weights  a batch of 10 steps ago still counts 0.1 x 0.9^10 = 0.035

Shape letters: n images, d embedding width.
"""

from torch import Tensor

from selfsup.core.numerics import at_least_float32, float64_norm, full_precision
from selfsup.losses.measures import COSINE


def barlow_twins(
    a: Tensor, b: Tensor, *, off_diagonal: float, scale: float = 1.0, eps: float = 1e-5
) -> Tensor:
    """Barlow Twins: the correlation of two views becomes the identity (equations 1 and 2).

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

    Example:
        >>> a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(barlow_twins(a, a, off_diagonal=0.005).item(), 3)  # uncorrelated dimensions
        0.0
        >>> round(barlow_twins(a[:, :1].repeat(1, 2), a, off_diagonal=0.005).item(), 3)
        1.005
    """
    _check(a, b)
    n = len(a)
    with full_precision(a):
        first, second = (_standardize(at_least_float32(x), eps) for x in (a, b))
        square = (first.T @ second / n).square()  # [d, d]
        diagonal = ((first * second).mean(0) - 1).square().sum()  # not from the square: exact
        return scale * (diagonal + off_diagonal * (square.sum() - square.diagonal().sum()))


def _standardize(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(0)
    deviation = float64_norm(centred, dim=0) / len(x) ** 0.5
    divisor: Tensor = (deviation.square() + eps).sqrt().to(x)
    return centred / divisor


def vicreg(
    a: Tensor,
    b: Tensor,
    *,
    invariance: float,
    variance: float,
    covariance: float,
    eps: float = 1e-4,
) -> Tensor:
    """VICReg: variance, invariance and covariance of two views (equations 1 to 6).

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

    Example:
        >>> a = torch.zeros(4, 2)  # collapsed
        >>> round(vicreg(a, a, invariance=25, variance=25, covariance=1).item(), 3)
        24.75
    """
    _check(a, b)
    with full_precision(a):
        a, b = at_least_float32(a), at_least_float32(b)
        total = invariance * (a - b).square().mean()
        for x in (a, b):
            centred = x - x.mean(0)
            variances = centred.square().sum(0) / (len(x) - 1)
            total = total + variance / 2 * (1 - (variances + eps).sqrt()).relu().mean()
            square = (centred.T @ centred / (len(x) - 1)).square()
            total = total + covariance * (square.sum() - square.diagonal().sum()) / x.shape[1]
        return total


def tico(a: Tensor, b: Tensor, *, second_moment: Tensor, rho: float) -> Tensor:
    """TiCo: pull two views together, and away from the directions that embeddings use most.

    The mean over n of 1 - a_i.b_i + rho a_i' C a_i, all rows at length 1.

    Source: Zhu et al. 2022, https://arxiv.org/abs/2206.10698. C is the moving average that
    `moving_second_moment` returns, with this batch in it. The gradient flows through C too, as in
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

    Example:
        >>> a = torch.eye(2)
        >>> moment = moving_second_moment(a, torch.zeros(2, 2), beta=0.9)
        >>> round(tico(a, a, second_moment=moment, rho=8.0).item(), 3)
        0.4
    """
    _check(a, b)
    with full_precision(a):
        first, second = COSINE.prepare(a), COSINE.prepare(b.detach())
        attraction = 1 - (first * second).sum(1).mean()
        return attraction + rho * ((first @ second_moment) * first).sum(1).mean()


def moving_second_moment(a: Tensor, before: Tensor, *, beta: float) -> Tensor:
    """Update TiCo's moving average of the second moment. [n, d], [d, d] -> [d, d].

    beta x before + (1 - beta) / n x sum of a_i a_i', rows at length 1.

    Example:
        >>> moving_second_moment(torch.eye(2), torch.zeros(2, 2), beta=0.5).tolist()
        [[0.25, 0.0], [0.0, 0.25]]
    """
    with full_precision(a):
        z = COSINE.prepare(a)
        return beta * before.to(z.dtype) + (1 - beta) / len(z) * (z.T @ z)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"views differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if len(a) < 2:
        raise ValueError("a batch of one image has no variance; the loss needs 2 or more")
