"""Proxy losses: embeddings against one learnt row for each class.

The proxies are parameters of the caller. Their gradient comes from the loss alone, which is the
same on every process.

Shape letters: n embeddings, d width, c classes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.labels import class_labels
from selfsup.core.numerics import full_precision
from selfsup.core.transfers import send
from selfsup.losses.measures import COSINE
from selfsup.losses.row_blocks import log_1_plus_sum_exp, map_rows


def arcface(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, margin: float, scale: float
) -> Tensor:
    """ArcFace: softmax with a margin added to the angle to the true class (equation 3).

    The mean over rows of the cross-entropy of scale * cos(theta_k), where the true class's angle is
    theta + margin. Beyond pi - margin, where cos(theta + margin) would rise again, it is
    cos(theta) - margin sin(margin), which decreases further.

    Source: Deng et al. 2019, https://arxiv.org/abs/1801.07698: margin 0.5 rad, scale 64. The
    gradient is exact. pytorch-metric-learning takes degrees (28.6), and InsightFace has the guard
    beyond pi - margin as an option.

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

    Example:
        >>> x, labels, proxies = torch.eye(2), torch.tensor([0, 1]), torch.eye(2)
        >>> round(arcface(x, labels, proxies, margin=0.5, scale=1.0).item(), 3)
        0.348
    """

    def with_margin(cosine: Tensor) -> Tensor:
        inside = cosine > math.cos(math.pi - margin)
        # sin has an infinite gradient at a cosine of 1: there it counts as 0, with gradient 0
        square = 1 - cosine * cosine
        flat = square <= torch.finfo(cosine.dtype).eps
        sine = torch.where(flat, 0, torch.where(flat, 1, square).sqrt())
        turned = cosine * math.cos(margin) - sine * math.sin(margin)
        return torch.where(inside, turned, cosine - margin * math.sin(margin))

    _, labels = _check(embeddings, labels, proxies)
    with full_precision(embeddings):
        z, w = COSINE.prepare(embeddings), COSINE.prepare(proxies)
        positive = (z * w[labels]).sum(1)
        return _cross_entropy(z, w, labels, with_margin(positive), scale)


def cosface(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, margin: float, scale: float
) -> Tensor:
    """CosFace: softmax with a margin subtracted from the cosine to the true class (equation 4).

    The mean over rows of the cross-entropy of scale * cos(theta_k), the true class's cosine less
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

    Example:
        >>> x, labels, proxies = torch.eye(2), torch.tensor([0, 1]), torch.eye(2)
        >>> round(cosface(x, labels, proxies, margin=0.35, scale=1.0).item(), 3)
        0.42
    """
    _, labels = _check(embeddings, labels, proxies)
    with full_precision(embeddings):
        z, w = COSINE.prepare(embeddings), COSINE.prepare(proxies)
        positive = (z * w[labels]).sum(1)
        return _cross_entropy(z, w, labels, positive - margin, scale)


def proxy_anchor(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, margin: float, alpha: float
) -> Tensor:
    """Proxy-Anchor: each proxy pulls its class and pushes all other embeddings (equation 4).

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

    Example:
        >>> x, labels, proxies = torch.eye(2), torch.tensor([0, 1]), torch.eye(2)
        >>> round(proxy_anchor(x, labels, proxies, margin=0.1, alpha=1.0).item(), 3)
        1.086
    """
    present, labels = _check(embeddings, labels, proxies)
    with full_precision(embeddings):
        z, w = COSINE.prepare(embeddings), COSINE.prepare(proxies)
        classes = torch.arange(len(w), device=w.device)

        def pull_and_push(similarities: Tensor, block: slice) -> Tensor:
            positive = classes[block, None] == labels
            pull = (-alpha * (similarities - margin)).masked_fill(~positive, -torch.inf)
            push = (alpha * (similarities + margin)).masked_fill(positive, -torch.inf)
            return log_1_plus_sum_exp(pull) / present + log_1_plus_sum_exp(push) / len(w)

        return map_rows(w, z, COSINE, pull_and_push, equal_weights=True).sum()


def _cross_entropy(z: Tensor, w: Tensor, labels: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Cross-entropy of scaled cosines, with `positive` [n] as the cosine to the true class."""

    def log_negatives(similarities: Tensor, block: slice) -> Tensor:
        logits = (scale * similarities).scatter(1, labels[block, None], -torch.inf)
        return logits.logsumexp(1)

    if len(w) == 1:
        return (positive * 0).mean()
    negative_terms = map_rows(z, w, COSINE, log_negatives, equal_weights=False)
    return F.softplus(negative_terms - scale * positive).mean()


def _check(embeddings: Tensor, labels: Tensor, proxies: Tensor) -> tuple[int, Tensor]:
    """Count the classes on the host, and send the labels as int64 to the embeddings' device.

    Raises:
        ValueError: a label has no proxy.
    """
    if len(embeddings) == 0:
        raise ValueError("there are no embeddings")
    labels = class_labels(labels.cpu())
    if labels.min() < 0 or labels.max() >= len(proxies):
        raise ValueError(
            f"labels are {labels.min()} to {labels.max()}, but proxies are 0 to {len(proxies) - 1}"
        )
    return len(labels.unique()), send(labels, embeddings.device)
