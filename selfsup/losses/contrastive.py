"""Contrastive losses: pull two views of an image together, push other images apart.

Every loss here is a pure function of the embeddings of the whole global batch. It does not own a
projector, a queue or a temperature, and knows nothing of processes.

Shape letters: n images, d embedding width, q rows of a queue.
"""

import torch
from torch import Tensor

from selfsup.core.numerics import at_least_float32, full_precision, with_float64
from selfsup.losses.measures import COSINE
from selfsup.losses.relations import Relations
from selfsup.losses.row_blocks import log_sum_exp, map_rows
from selfsup.losses.symmetric import MIN_TEMPERATURE, cross_entropy_of_views

LOWEST_TEMPERATURE = MIN_TEMPERATURE[torch.float64]
"""Of `nt_xent`: 1/690."""


def nt_xent(
    a: Tensor, b: Tensor, *, temperature: float, products: torch.dtype | None = None
) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR, equation 1).

    Each of the 2n embeddings has one positive, its image's other view, and 2n - 2 negatives:
    the mean over 2n anchors of -log(exp(s_ip / T) / sum over j != i of exp(s_ij / T)).

    Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709, section 2.1. As there, a view is
    never its own negative. (The paper's TensorFlow code returns twice this value.) The matrix of
    similarities is never held: memory is linear in n.

    Args:
        a: [n, d] embeddings of the first views, in any scale.
        b: [n, d] embeddings of the second views; row i is the image of `a[i]`.
        temperature: divides cosine similarities; 0.1 to 0.5 is usual. Lower weighs the hardest
            negatives more. Below 1/72 all is computed in float64.
        products: multiply matrices in this type, where bfloat16 is fast: similarities then have
            three digits. None: exact, whatever autocast says.

    Returns:
        Scalar, in nats, at least 0. Chance is log(2n - 1): embeddings that all agree score that
        too, with gradient zero.

    Raises:
        ValueError: the views differ in shape, or the temperature is below 1/690.

    Example:
        >>> views = torch.eye(3)  # orthogonal images, each with two equal views
        >>> round(nt_xent(views, views, temperature=0.5).item(), 3)
        0.433
    """
    _check(a, b, temperature)
    if temperature < LOWEST_TEMPERATURE:
        raise ValueError(f"temperature must be 1/690 (0.00145) or more, not {temperature}")
    a, b = at_least_float32(a), at_least_float32(b)  # half precision blurs similarities
    if temperature >= MIN_TEMPERATURE[a.dtype]:
        return cross_entropy_of_views(a, b, temperature, products or a.dtype)
    x, y = with_float64(a).double(), with_float64(b).double()
    return cross_entropy_of_views(x, y, temperature, torch.float64).to(a)


def info_nce(a: Tensor, b: Tensor, *, temperature: float, queue: Tensor | None = None) -> Tensor:
    """One-directional cross-entropy of a query against its key and other keys (MoCo, equation 1).

    The mean over n queries of -log(exp(a_i.b_i / T) / sum over k of exp(a_i.k / T)), all rows at
    length 1. The keys k are b_i and the queue; without a queue, all rows of b.

    Source: He et al. 2020, https://arxiv.org/abs/1911.05722, equation 1; van den Oord et al. 2018,
    https://arxiv.org/abs/1807.03748, equation 4. MoCo v3 returns 2 T times this; CLIP takes the
    mean with the other direction.

    Args:
        a: [n, d] queries, in any scale.
        b: [n, d] keys; row i is the positive of `a[i]`. Detach them where they come from a teacher.
        temperature: divides cosine similarities (0.07 in MoCo, 0.2 in MoCo v2).
        queue: [q, d] keys of earlier batches.

    Returns:
        Scalar, in nats, at least 0. Collapsed: log(1 + q), without a queue log(n); gradient zero.

    Raises:
        ValueError: queries and keys differ in shape, or the temperature is not positive.

    Example:
        >>> queries = keys = torch.eye(3)
        >>> round(info_nce(queries, keys, temperature=0.5).item(), 3)
        0.24
        >>> round(info_nce(queries, keys, temperature=0.5, queue=-keys).item(), 3)
        0.254
    """
    _check(a, b, temperature)
    with full_precision(a):
        queries, keys = COSINE.prepare(a), COSINE.prepare(b)
        positive = (queries * keys).sum(1) / temperature
        candidates = keys if queue is None else COSINE.prepare(queue)

        def log_denominator(similarities: Tensor, block: slice) -> Tensor:
            return (similarities / temperature).logsumexp(1)

        # with a queue the positive is added below, which gives rows different weights
        total = map_rows(queries, candidates, COSINE, log_denominator, equal_weights=queue is None)
        if queue is not None:
            total = torch.logaddexp(total, positive)
        return (total - positive).mean()


def dcl(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator (equation 6).

    The mean over 2n anchors of -s_ip / T + log(sum over the 2n - 2 negatives of exp(s_ij / T)).

    Source: Yeh et al. 2022, https://arxiv.org/abs/2110.06848. The negatives of both views stand in
    one log-sum-exp; some implementations add one for each view.

    Args:
        a: [n, d] embeddings of the first views, in any scale.
        b: [n, d] embeddings of the second views; row i is the image of `a[i]`.
        temperature: divides cosine similarities; 0.1 in the paper.

    Returns:
        Scalar, in nats, of any sign. Collapsed: log(2n - 2), with gradient zero.

    Raises:
        ValueError: the views differ in shape, there is one image, or the temperature is not
            positive.

    Example:
        >>> views = torch.eye(3)
        >>> round(dcl(views, views, temperature=0.5).item(), 3)
        -0.614
    """
    return _decoupled(a, b, temperature, torch.ones(len(a), device=a.device))


def dclw(a: Tensor, b: Tensor, *, temperature: float, sigma: float) -> Tensor:
    """Decoupled contrastive loss whose similar positives weigh less (equation 7).

    As `dcl`, with -w_i s_ip / T and w_i = 2 - exp(s_i / sigma) / mean over j of exp(s_j / sigma),
    where s_i is the similarity of image i's two views. The weights have no gradient.

    Source: Yeh et al. 2022, https://arxiv.org/abs/2110.06848, section 3.3 (von Mises-Fisher
    weights). The paper does not say whether weights have a gradient; its code lets them, lightly
    does not.

    Args:
        a: [n, d] embeddings of the first views, in any scale.
        b: [n, d] embeddings of the second views; row i is the image of `a[i]`.
        temperature: divides cosine similarities.
        sigma: the smaller, the more weights differ; 0.5 in the paper.

    Returns:
        Scalar, in nats, of any sign. Collapsed: log(2n - 2), with gradient zero.

    Raises:
        ValueError: as `dcl`, or sigma is not positive.

    Example:
        >>> a = torch.eye(3)
        >>> b = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
        >>> round(dclw(a, b, temperature=0.5, sigma=0.5).item(), 3)
        -0.002
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, not {sigma}")
    with torch.no_grad(), full_precision(a):
        positive = (COSINE.prepare(a) * COSINE.prepare(b)).sum(1)
        weights = 2 - len(a) * (positive / sigma).softmax(0)
    return _decoupled(a, b, temperature, weights)


def _decoupled(a: Tensor, b: Tensor, temperature: float, weights: Tensor) -> Tensor:
    _check(a, b, temperature)
    n = len(a)
    if n < 2:
        raise ValueError("one image has no negatives; the loss needs 2 or more")
    with full_precision(a):
        z = COSINE.prepare(torch.cat([a, b]))
        images = Relations(torch.arange(n).repeat(2), device=a.device)

        def log_negatives(similarities: Tensor, block: slice) -> Tensor:
            logits = similarities / temperature
            return log_sum_exp(images.negative_values(logits, block, fill=-torch.inf))

        positive = (z[:n] * z[n:]).sum(1) / temperature
        terms = map_rows(z, z, COSINE, log_negatives, equal_weights=True)
        return terms.mean() - (weights * positive).mean()


def _check(a: Tensor, b: Tensor, temperature: float) -> None:
    if a.shape != b.shape:
        raise ValueError(f"views differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
