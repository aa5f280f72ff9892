"""N-pairs and angular losses: one pair against the other classes of the batch.

Shape letters: m embeddings, d width, c classes with two images or more, t pairs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.labels import class_labels
from selfsup.core.numerics import full_precision
from selfsup.core.transfers import send
from selfsup.losses.measures import Similarity
from selfsup.losses.relations import Relations, mask_self, masked_mean
from selfsup.losses.row_blocks import log_sum_exp, map_rows

DOT = Similarity(normalize=False)


def n_pairs(
    embeddings: Tensor, labels: Tensor, *, normalize: bool, temperature: float, regularizer: float
) -> Tensor:
    """Multi-class N-pair loss: an anchor's positive against the positives of other classes.

    Of each class its first row is the anchor a and its second the positive p. The mean over classes
    of log(1 + sum over j != i of exp((a_i.p_j - a_i.p_i) / T)), plus `regularizer` times the mean
    over classes of |a|^2 + |p|^2.

    Source: Sohn 2016 (NIPS), equations 6 and 7: raw dot products, T = 1, and the regulariser,
    because normalising without a temperature puts a floor under the loss (1.17 for 8 classes).
    pytorch-metric-learning normalises by default and keeps T = 1; TF's regulariser is a quarter of
    this one.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers; classes with one row are left out.
        normalize: scale rows to length 1; then a temperature of 0.1 or so is needed.
        temperature: divides dot products; 1 in the paper.
        regularizer: weight of the squared lengths; 0.002 in TF, of no use for unit rows.

    Returns:
        Scalar, in nats, at least 0 without the regulariser. Collapsed: log(c), with gradient zero.

    Raises:
        ValueError: fewer than two classes have two rows, or the temperature is not positive.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(n_pairs(x, labels, normalize=False, temperature=1, regularizer=0).item(), 3)
        0.313
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    first, second = _pair_of_each_class(labels, embeddings.device)
    with full_precision(embeddings):
        x = Similarity(normalize).prepare(embeddings)
        a, p = x[first], x[second]

        def cross_entropy(similarities: Tensor, block: slice) -> Tensor:
            logits = similarities / temperature
            positive = torch.arange(block.start, block.stop, device=logits.device)[:, None]
            return logits.logsumexp(1) - logits.gather(1, positive)[:, 0]

        loss = map_rows(a, p, DOT, cross_entropy, equal_weights=True).mean()
        if regularizer:
            loss = loss + regularizer * (a.square().sum(1) + p.square().sum(1)).mean()
        return loss


def angular(embeddings: Tensor, labels: Tensor, *, degrees: float) -> Tensor:
    """Angular loss of every positive pair against all rows of other classes (equation 8).

    With t = tan^2(alpha), the mean over ordered positive pairs (a, p) of
    log(1 + sum over negatives n of exp(4 t (a + p).n - 2 (1 + t) a.p)), all rows at length 1.

    Source: Wang et al. 2017, https://arxiv.org/abs/1708.01682. pytorch-metric-learning's forgets to
    normalise the negatives.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        degrees: alpha, the largest angle at the negative; 36 to 55 in the paper.

    Returns:
        Scalar, in nats, at least 0. Collapsed, with q negatives each: log(1 + q exp(6 t - 2)), with
        gradient zero.

    Raises:
        ValueError: no pair has a negative, or alpha is not between 0 and 90 degrees.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(angular(x, labels, degrees=45).item(), 3)
        0.036
    """
    square = _tangent_squared(degrees)
    relations = Relations(labels, device=embeddings.device)
    anchor, positive = relations.positive_pairs()

    def log_negatives(similarities: Tensor, block: slice) -> Tensor:
        same = relations.sent_labels[anchor[block], None] == relations.sent_labels
        return log_sum_exp((4 * square * similarities).masked_fill(same, -torch.inf))

    with full_precision(embeddings):
        z = Similarity().prepare(embeddings)
        a, p = z[anchor], z[positive]
        positive_term = 2 * (1 + square) * (a * p).sum(1)
        negative_term = map_rows(a + p, z, DOT, log_negatives, equal_weights=False)
        terms = F.softplus(negative_term - positive_term)
    positives, negatives = relations.counts()
    has_negative = (negatives > 0).repeat_interleave(positives)  # of each pair
    return masked_mean(terms, has_negative, "both a positive and a negative")


def angular_n_pairs(embeddings: Tensor, labels: Tensor, *, degrees: float) -> Tensor:
    """Angular loss on one pair of each class (equation 7): negatives are other classes' positives.

    As `angular`, with the first row of each class as its anchor and the second as its positive.

    Source: Wang et al. 2017, https://arxiv.org/abs/1708.01682.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers; classes with one row are left out.
        degrees: alpha, the largest angle at the negative.

    Returns:
        Scalar, in nats, at least 0. Collapsed: log(1 + (c - 1) exp(6 t - 2)), with gradient zero.

    Raises:
        ValueError: fewer than two classes have two rows, or alpha is not between 0 and 90 degrees.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> round(angular_n_pairs(x, labels, degrees=45).item(), 3)
        0.018
    """
    first, second = _pair_of_each_class(labels, embeddings.device)
    square = _tangent_squared(degrees)

    def log_negatives(similarities: Tensor, block: slice) -> Tensor:
        return log_sum_exp(mask_self(4 * square * similarities, block, fill=-torch.inf))

    with full_precision(embeddings):
        z = Similarity().prepare(embeddings)
        a, p = z[first], z[second]
        positive_term = 2 * (1 + square) * (a * p).sum(1)
        negative_term = map_rows(a + p, p, DOT, log_negatives, equal_weights=False)
        return F.softplus(negative_term - positive_term).mean()


def n_pairs_angular(
    embeddings: Tensor,
    labels: Tensor,
    *,
    normalize: bool,
    temperature: float,
    regularizer: float,
    degrees: float,
    weight: float,
) -> Tensor:
    """N-pair loss plus `weight` times the angular loss of the same pairs (Wang et al., eq. 9).

    Source: Wang et al. 2017, https://arxiv.org/abs/1708.01682, where the weight is 2.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers; classes with one row are left out.
        normalize: of the N-pair term; the angular term always does.
        temperature: of the N-pair term.
        regularizer: of the N-pair term.
        degrees: alpha of the angular term.
        weight: of the angular term.

    Returns:
        Scalar, in nats, at least 0. Collapsed: the sum of both terms' values.

    Raises:
        ValueError: as either term.

    Example:
        >>> x, labels = torch.eye(2).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1])
        >>> settings = dict(normalize=True, temperature=1, regularizer=0, degrees=45, weight=2)
        >>> round(n_pairs_angular(x, labels, **settings).item(), 3)
        0.35
    """
    pairs = n_pairs(
        embeddings, labels, normalize=normalize, temperature=temperature, regularizer=regularizer
    )
    return pairs + weight * angular_n_pairs(embeddings, labels, degrees=degrees)


def _tangent_squared(degrees: float) -> float:
    if not 0 < degrees < 90:
        raise ValueError(f"alpha must be between 0 and 90 degrees, not {degrees}")
    return math.tan(math.radians(degrees)) ** 2


def _pair_of_each_class(labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of the first and second row of each class that has two: [c], [c], by class.

    They are found on the host, so that no device is waited for.
    """
    labels = class_labels(labels.cpu())
    order = labels.argsort(stable=True)
    sizes = labels.unique(return_counts=True)[1]
    start = sizes.cumsum(0) - sizes
    start = start[sizes > 1]
    if len(start) < 2:
        raise ValueError(
            f"{len(start)} classes of the batch have 2 rows or more; pairs need 2 such classes"
        )
    return send(order[start], device), send(order[start + 1], device)
