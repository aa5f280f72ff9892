"""Proxy losses: embeddings against one learnt row for each class.

The proxies are parameters of the caller's. They get their gradient from the loss alone, which is
the same on every process.

Shape letters: n embeddings, d width, c classes.
"""

import math

import torch
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import COSINE
from selfsup.losses.row_blocks import each_row, log_1_plus_sum_exp


def arcface(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, margin: float, scale: float
) -> Tensor:
    """Softmax over classes with a margin added to the angle to the own class (equation 3).

    The mean over rows of the cross-entropy of scale * cos(theta_k), where the own class's angle is
    theta + margin. Beyond pi - margin, where cos(theta + margin) would rise again, it is
    cos(theta) - margin sin(margin), which goes on falling.

    Source: Deng et al. 2019, https://arxiv.org/abs/1801.07698: margin 0.5 rad, scale 64. Its
    gradient is the true one. pytorch-metric-learning wants degrees (28.6), and InsightFace has the
    guard as an option.

    Args:
        embeddings: [n, d] in any scale.
        labels: [n] integers below c.
        proxies: [c, d] in any scale.
        margin: in radians.
        scale: multiplies cosines.

    Returns:
        Scalar, in nats, at least 0. With proxies and embeddings all equal:
        log(1 + (c - 1) exp(scale (1 - cos(margin)))).

    Raises:
        ValueError: there are no rows, or a label has no proxy.
    """

    def with_margin(cosine: Tensor) -> Tensor:
        inside = cosine > math.cos(math.pi - margin)
        # sin has an infinite gradient at a cosine of 1: there it counts as 0, with gradient 0
        square = 1 - cosine * cosine
        flat = square <= torch.finfo(cosine.dtype).eps
        sine = torch.where(flat, 0, torch.where(flat, 1, square).sqrt())
        turned = cosine * math.cos(margin) - sine * math.sin(margin)
        return torch.where(inside, turned, cosine - margin * math.sin(margin))

    _check(embeddings, labels, proxies)
    with full_precision(embeddings):
        z, w = COSINE.prepare(embeddings), COSINE.prepare(proxies)
        own = (z * w[labels]).sum(1)
        return _cross_entropy(z, w, labels, with_margin(own), scale)


def cosface(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, margin: float, scale: float
) -> Tensor:
    """Softmax over classes with a margin taken from the cosine to the own class (equation 4).

    The mean over rows of the cross-entropy of scale * cos(theta_k), the own class's cosine less
    `margin`.

    Source: Wang et al. 2018, https://arxiv.org/abs/1801.09414: margin 0.35, scale 64.

    Args:
        embeddings: [n, d] in any scale.
        labels: [n] integers below c.
        proxies: [c, d] in any scale.
        margin: of cosines.
        scale: multiplies cosines.

    Returns:
        Scalar, in nats, at least 0. With proxies and embeddings all equal:
        log(1 + (c - 1) exp(scale margin)).

    Raises:
        ValueError: there are no rows, or a label has no proxy.
    """
    _check(embeddings, labels, proxies)
    with full_precision(embeddings):
        z, w = COSINE.prepare(embeddings), COSINE.prepare(proxies)
        own = (z * w[labels]).sum(1)
        return _cross_entropy(z, w, labels, own - margin, scale)


def proxy_anchor(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, margin: float, alpha: float
) -> Tensor:
    """Each proxy as an anchor: its class pulled in, all other embeddings pushed off (equation 4).

    The mean over classes present of log(1 + sum over their rows of exp(-alpha (s - margin))) plus
    the mean over all classes of log(1 + sum over other classes' rows of exp(alpha (s + margin))).

    Source: Kim et al. 2020, https://arxiv.org/abs/2003.13911: margin 0.1, alpha 32, proxies at 100
    times the learning rate. pytorch-metric-learning agrees.

    Args:
        embeddings: [n, d] in any scale.
        labels: [n] integers below c.
        proxies: [c, d] in any scale.
        margin: of cosines.
        alpha: scale.

    Returns:
        Scalar, in nats, at least 0. With proxies and embeddings all equal and k rows of each class:
        log(1 + k exp(-alpha (1 - margin))) + log(1 + (n - k) exp(alpha (1 + margin))).

    Raises:
        ValueError: there are no rows, or a label has no proxy.
    """
    _check(embeddings, labels, proxies)
    with full_precision(embeddings):
        z, w = COSINE.prepare(embeddings), COSINE.prepare(proxies)
        classes = torch.arange(len(w), device=w.device)

        def value(similar: Tensor, part: slice) -> Tensor:
            own = classes[part, None] == labels
            near = (-alpha * (similar - margin)).masked_fill(~own, -torch.inf)
            far = (alpha * (similar + margin)).masked_fill(own, -torch.inf)
            return log_1_plus_sum_exp(near) / present + log_1_plus_sum_exp(far) / len(w)

        present = len(labels.unique())
        return each_row(w, z, COSINE, value).sum()


def _cross_entropy(z: Tensor, w: Tensor, labels: Tensor, own: Tensor, scale: float) -> Tensor:
    """Cross-entropy with `own` [n] as the cosine to the own class."""

    def value(similar: Tensor, part: slice) -> Tensor:
        row = torch.arange(len(similar), device=z.device)
        others = (scale * similar).index_put((row, labels[part]), z.new_tensor(-torch.inf))
        return others.logsumexp(1)

    if len(w) == 1:
        return (own * 0).mean()
    return torch.nn.functional.softplus(
        each_row(z, w, COSINE, value, ahead=False) - scale * own
    ).mean()


def _check(embeddings: Tensor, labels: Tensor, proxies: Tensor) -> None:
    if len(embeddings) == 0:
        raise ValueError("there are no embeddings")
    if labels.min() < 0 or labels.max() >= len(proxies):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} have proxies 0 to {len(proxies) - 1}"
        )
