"""Losses of cosine similarities with labels: each anchor's positives against its negatives.

Shape letters: m embeddings, n anchors among them, d width, r anchors of a block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import COSINE
from selfsup.losses.relations import Anchors, Pairs, Relations, mask_self, masked_mean
from selfsup.losses.row_blocks import RowFunction, log_1_plus_sum_exp, log_sum_exp, map_rows


def supcon(
    embeddings: Tensor, labels: Tensor, *, temperature: float, anchors: Anchors = None
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
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Scalar, in nats, at least 0. Collapsed: log(m - 1), with gradient zero.

    Raises:
        ValueError: no anchor has a positive, or the temperature is not positive.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(supcon(x, labels, temperature=1.0).item(), 3)
        0.551
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    count = relations.counts()[0]
    divisor = relations.send(count).clamp(min=1)

    def cross_entropy(similarities: Tensor, block: slice) -> Tensor:
        logits = similarities / temperature
        positive_logits, positive = relations.positive_values(logits, block)
        mean = positive_logits.masked_fill(~positive, 0).sum(1) / divisor[block]
        return log_sum_exp(mask_self(logits, block, fill=-torch.inf)) - mean

    valid = count > 0
    terms = _map_anchors(embeddings, relations, cross_entropy, temperature, valid=valid)
    return masked_mean(terms, valid, "a positive")


def class_nt_xent(
    embeddings: Tensor, labels: Tensor, *, temperature: float, anchors: Anchors = None
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
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Scalar, in nats, at least 0. Collapsed, with q negatives each: log(1 + q), with gradient
        zero.

    Raises:
        ValueError: no anchor has both a positive and a negative, or the temperature is not
            positive.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(class_nt_xent(x, labels, temperature=1.0).item(), 3)
        0.551
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    count, negatives = relations.counts()
    if (count * negatives).sum() == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")

    def cross_entropy(similarities: Tensor, block: slice) -> Tensor:
        logits = similarities / temperature
        negative_logits = relations.negative_values(logits, block, fill=-torch.inf)
        positive_logits, positive = relations.positive_values(logits, block)
        gap = log_sum_exp(negative_logits)[:, None] - positive_logits
        return F.softplus(gap).masked_fill(~positive, 0).sum(1)

    return _map_anchors(embeddings, relations, cross_entropy, temperature).sum() / int(count.sum())


def multi_similarity(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    base: float,
    anchors: Anchors = None,
    pairs: Pairs | None = None,
) -> Tensor:
    """Multi-similarity loss: positives and negatives weighed by their neighbours (equation 15).

    The mean over all anchors of log(1 + sum over positives of exp(-alpha (s - base))) / alpha +
    log(1 + sum over negatives of exp(beta (s - base))) / beta.

    Source: Wang et al. 2019, https://arxiv.org/abs/1904.06627: alpha 2, beta 50, base 0.5 with the
    pairs of `mining.multi_similarity_pairs`; the paper's code and pytorch-metric-learning agree on
    the mean (an anchor without pairs counts as 0).

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        alpha: how much the least similar positives count.
        beta: how much the most similar negatives count.
        base: the similarity that should separate positives from negatives.
        anchors: how many of the first rows are anchors (`Anchors`).
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed, with p positives and q negatives each:
        log(1 + p exp(-alpha (1 - base))) / alpha + log(1 + q exp(beta (1 - base))) / beta, with
        gradient zero.

    Raises:
        ValueError: there is no pair.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(multi_similarity(x, labels, alpha=2, beta=50, base=0.5).item(), 3)
        0.157
    """
    relations = Relations(labels, anchors, pairs, embeddings.device)
    positives, negatives = relations.counts()

    def pull_and_push(similarities: Tensor, block: slice) -> Tensor:
        s_p, positive = relations.positive_values(similarities, block)
        s_n = relations.negative_values(similarities, block, fill=-torch.inf)
        pull = (-alpha * (s_p - base)).masked_fill(~positive, -torch.inf)
        push = beta * (s_n - base)
        return log_1_plus_sum_exp(pull) / alpha + log_1_plus_sum_exp(push) / beta

    if not (positives.any() or negatives.any()):
        raise ValueError("no anchor of the batch has a positive or a negative")
    return _map_anchors(embeddings, relations, pull_and_push).mean()


def circle(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float,
    gamma: float,
    anchors: Anchors = None,
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
        anchors: how many of the first rows are anchors (`Anchors`).
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed, with p positives and q negatives each: about
        gamma (1 - m^2) + log(q) - gamma m^2 + log(p), with gradient zero.

    Raises:
        ValueError: no anchor has both a positive and a negative.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(circle(x, labels, margin=0.4, gamma=10).item(), 3)
        0.078
    """
    relations = Relations(labels, anchors, pairs, embeddings.device)
    positives, negatives = relations.counts()

    def pull_times_push(similarities: Tensor, block: slice) -> Tensor:
        s_p, positive = relations.positive_values(similarities, block)
        pull = -gamma * F.relu(1 + margin - s_p.detach()) * (s_p - 1 + margin)
        push = gamma * F.relu(similarities.detach() + margin) * (similarities - margin)
        pull = pull.masked_fill(~positive, -torch.inf)
        push = relations.negative_values(push, block, fill=-torch.inf)
        return F.softplus(log_sum_exp(pull) + log_sum_exp(push))

    valid = (positives > 0) & (negatives > 0)
    terms = _map_anchors(embeddings, relations, pull_times_push, valid=valid)
    return masked_mean(terms, valid, "both a positive and a negative")


def _map_anchors(
    embeddings: Tensor,
    relations: Relations,
    function: RowFunction,
    temperature: float = 1.0,
    *,
    valid: Tensor | None = None,
) -> Tensor:
    """Apply `function` to each anchor's row of cosines. [m, d] -> [n].

    The loss is the mean over the anchors that are `valid`, or the mean or sum over all.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    with full_precision(embeddings):
        z = COSINE.prepare(embeddings)
        equal = valid is None or bool(valid.all())
        return map_rows(relations.anchor_rows(z), z, COSINE, function, equal_weights=equal)
