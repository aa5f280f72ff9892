"""Losses of cosine similarities with labels: each anchor's positives against its negatives.

Shape letters: m embeddings, n anchors among them, d width, r anchors of a block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import COSINE
from selfsup.losses.relations import Pairs, Relations, mean_of
from selfsup.losses.row_blocks import Value, each_row, log_1_plus_sum_exp, log_sum_exp


def supcon(
    embeddings: Tensor, labels: Tensor, *, temperature: float, anchors: int | None = None
) -> Tensor:
    """Supervised contrastive loss, the mean outside of the logarithm (L_out, equation 2).

    The mean over anchors i with a positive of -1/|P(i)| times the sum over positives p of
    log(exp(s_ip / T) / sum over k != i of exp(s_ik / T)).

    Source: Khosla et al. 2020, https://arxiv.org/abs/2004.11362. The paper's code multiplies by
    T / 0.07, and its first versions divide by zero where an anchor has no positive; like
    pytorch-metric-learning this does neither.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        temperature: divides cosine similarities; 0.1 in the paper.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Scalar, in nats, at least 0. Collapsed: log(m - 1), with gradient zero.

    Raises:
        ValueError: no anchor has a positive, or the temperature is not positive.
    """
    relations = Relations(labels, anchors)
    count = relations.counts()[0]

    def value(similar: Tensor, part: slice) -> Tensor:
        logits = similar / temperature
        near, positive = relations.positives(logits, part)
        mean = near.masked_fill(~positive, 0).sum(1) / count[part].clamp(min=1)
        return log_sum_exp(relations.others(logits, part, fill=-torch.inf)) - mean

    each = _rows(embeddings, relations, value, temperature)
    return mean_of(each, count > 0, "a positive")


def supcon_in(
    embeddings: Tensor, labels: Tensor, *, temperature: float, anchors: int | None = None
) -> Tensor:
    """Supervised contrastive loss, the mean inside of the logarithm (L_in, equation 3).

    The mean over anchors i with a positive of -log(mean over positives p of exp(s_ip / T) / sum
    over k != i of exp(s_ik / T)). The paper finds it worse than L_out.

    Source: Khosla et al. 2020, https://arxiv.org/abs/2004.11362.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        temperature: divides cosine similarities.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Scalar, in nats, at least 0. Collapsed: log(m - 1), with gradient zero.

    Raises:
        ValueError: no anchor has a positive, or the temperature is not positive.
    """
    relations = Relations(labels, anchors)
    count = relations.counts()[0]

    def value(similar: Tensor, part: slice) -> Tensor:
        logits = similar / temperature
        near, positive = relations.positives(logits, part)
        inside = log_sum_exp(near.masked_fill(~positive, -torch.inf))
        inside = inside - count[part].clamp(min=1).to(logits.dtype).log()
        return log_sum_exp(relations.others(logits, part, fill=-torch.inf)) - inside

    each = _rows(embeddings, relations, value, temperature)
    return mean_of(each, count > 0, "a positive")


def class_nt_xent(
    embeddings: Tensor, labels: Tensor, *, temperature: float, anchors: int | None = None
) -> Tensor:
    """NT-Xent with labels: each positive alone against the anchor's negatives.

    The mean over positive pairs (i, p) of -log(exp(s_ip / T) / (exp(s_ip / T) + sum over negatives
    k of i of exp(s_ik / T))). Other positives are not in the denominator, which is where it differs
    from SupCon. It is what pytorch-metric-learning's NTXentLoss means by labels.

    Source: Sohn 2016 (multi-class N-pair loss, equation 6) with every positive pair; Chen et al.
    2020, https://arxiv.org/abs/2002.05709, equation 1, where each class has two.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        temperature: divides cosine similarities.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Scalar, in nats, at least 0. Collapsed, with q negatives each: log(1 + q), with gradient
        zero.

    Raises:
        ValueError: no anchor has both a positive and a negative, or the temperature is not
            positive.
    """
    relations = Relations(labels, anchors)
    count, negatives = relations.counts()
    if (count * negatives).sum() == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")

    def value(similar: Tensor, part: slice) -> Tensor:
        logits = similar / temperature
        others = log_sum_exp(relations.negatives(logits, part, fill=-torch.inf))[:, None]
        near, positive = relations.positives(logits, part)
        return F.softplus(others - near).masked_fill(~positive, 0).sum(1)

    return _rows(embeddings, relations, value, temperature).sum() / count.sum()


def multi_similarity(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    base: float,
    anchors: int | None = None,
    pairs: Pairs | None = None,
) -> Tensor:
    """Multi-similarity loss: positives and negatives weighed by their neighbours (equation 15).

    The mean over all anchors of log(1 + sum over positives of exp(-alpha (s - base))) / alpha +
    log(1 + sum over negatives of exp(beta (s - base))) / beta.

    Source: Wang et al. 2019, https://arxiv.org/abs/1904.06627: alpha 2, beta 50, base 0.5 with the
    pairs of `mining.multi_similarity`; the paper's code and pytorch-metric-learning agree on the
    mean (an anchor without pairs counts as 0).

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        alpha: how much the least similar positives count.
        beta: how much the most similar negatives count.
        base: the similarity that should part them.
        anchors: only the first so many rows are anchors; None: all.
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed, with p positives and q negatives each:
        log(1 + p exp(-alpha (1 - base))) / alpha + log(1 + q exp(beta (1 - base))) / beta, with
        gradient zero.

    Raises:
        ValueError: there is no pair.
    """
    relations = Relations(labels, anchors, pairs)
    positives, negatives = relations.counts()

    def value(similar: Tensor, part: slice) -> Tensor:
        near, positive = relations.positives(similar, part)
        near = (-alpha * (near - base)).masked_fill(~positive, -torch.inf)
        far = relations.negatives(similar, part, fill=-torch.inf)
        pull = log_1_plus_sum_exp(near) / alpha
        return pull + log_1_plus_sum_exp(beta * (far - base)) / beta

    if not (positives.any() or negatives.any()):
        raise ValueError("no anchor of the batch has a positive or a negative")
    return _rows(embeddings, relations, value).mean()


def circle(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float,
    gamma: float,
    anchors: int | None = None,
    pairs: Pairs | None = None,
) -> Tensor:
    """Circle loss: each similarity pulled in proportion to how far it is from its optimum.

    The mean over anchors with both of log(1 + sum over negatives of exp(gamma a_n (s_n - m)) times
    sum over positives of exp(-gamma a_p (s_p - 1 + m))), a_p = [1 + m - s_p]+ and a_n = [s_n + m]+
    without gradient.

    Source: Sun et al. 2020, https://arxiv.org/abs/2002.10857, equations 6 to 8, pair-wise labels.
    pytorch-metric-learning agrees.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        margin: m above; 0.25 for re-identification, 0.4 for fine-grained retrieval in the paper.
        gamma: scale; 128 or 256 in the paper (80 for fine-grained retrieval).
        anchors: only the first so many rows are anchors; None: all.
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed, with p positives and q negatives each: about
        gamma (1 - m^2) + log(q) - gamma m^2 + log(p), with gradient zero.

    Raises:
        ValueError: no anchor has both a positive and a negative.
    """
    relations = Relations(labels, anchors, pairs)
    positives, negatives = relations.counts()

    def value(similar: Tensor, part: slice) -> Tensor:
        near, positive = relations.positives(similar, part)
        near = -gamma * F.relu(1 + margin - near.detach()) * (near - 1 + margin)
        far = gamma * F.relu(similar.detach() + margin) * (similar - margin)
        near = near.masked_fill(~positive, -torch.inf)
        far = relations.negatives(far, part, fill=-torch.inf)
        return F.softplus(log_sum_exp(near) + log_sum_exp(far))

    each = _rows(embeddings, relations, value)
    return mean_of(each, (positives > 0) & (negatives > 0), "both a positive and a negative")


def _rows(
    embeddings: Tensor, relations: Relations, value: Value, temperature: float = 1.0
) -> Tensor:
    """`value` of each anchor's cosines. [m, d] -> [n]."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    with full_precision(embeddings):
        z = COSINE.prepare(embeddings)
        return each_row(relations.of(z), z, COSINE, value)
