"""Losses of distillation: a student's features follow those of a frozen teacher.

The teacher's rows never get a gradient. Cosine and MSE compare a row with the teacher's row; the
other two compare how similar an image is to other images, in the eyes of student and teacher.

Shape letters: n images, d width of the student's rows, e of the teacher's, m anchors, r rows of a
block.
"""

import torch
from torch import Tensor

from selfsup.core.numerics import at_least_float32, full_precision
from selfsup.losses.measures import COSINE
from selfsup.losses.regression import negative_cosine
from selfsup.losses.row_blocks import log_sum_exp, map_rows


def feature_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over n rows of 1 - cos(student, teacher).

    Half the squared distance of rows at length 1.

    Source: Navaneet et al. 2022, https://arxiv.org/abs/2201.05131 (SimReg), section 3, with
    normalised features.

    Args:
        student: [n, d] projections into the teacher's width, in any scale.
        teacher: [n, d] features; they get no gradient.

    Returns:
        Scalar from 0 to 2; 0 where every row has the teacher's direction. A row of zeros of the
        teacher adds 1, with gradient zero.

    Raises:
        ValueError: the two differ in shape.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]])
        >>> round(feature_cosine(student, teacher).item(), 3)
        0.293
    """
    return 1 + negative_cosine(student, teacher)


def feature_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows and dimensions of (student - teacher)^2.

    Source: Romero et al. 2015, https://arxiv.org/abs/1412.6550, equation 3 (half the squared
    distance there, without a mean over dimensions).

    Args:
        student: [n, d] projections into the teacher's width.
        teacher: [n, d] features; they get no gradient.

    Returns:
        Scalar of 0 or more; it grows with the square of the teacher's scale.

    Raises:
        ValueError: the two differ in shape.

    Example:
        >>> feature_mse(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]])).item()
        1.0
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ"
        )
    with full_precision(student):
        difference = at_least_float32(student) - at_least_float32(teacher.detach())
        return difference.square().mean()


def relational(
    student: Tensor, teacher: Tensor, *, temperature: float, teacher_temperature: float
) -> Tensor:
    """Compare how similar each image is to the others of the batch, for student and teacher.

    The mean over rows i of KL(p_i | q_i), where p_i is the softmax over j != i of the teacher's
    cosines cos(t_i, t_j) / T_t, and q_i that of the student's cos(s_i, s_j) / T_s.

    Source: Koohpayegani et al. 2020, https://arxiv.org/abs/2010.14713 (CompRess), section 3,
    with the batch as its anchor points; each network is compared with its own rows.

    Args:
        student: [n, d] rows in any scale; their width need not be the teacher's.
        teacher: [n, e] rows; they get no gradient.
        temperature: divides the student's cosines; 0.04 in the paper.
        teacher_temperature: divides the teacher's cosines; 0.04 in the paper.

    Returns:
        Scalar in nats, 0 or more; 0 where both have the same similarities. Collapsed: log(n - 1)
        less the mean entropy of the teacher, with gradient zero.

    Raises:
        ValueError: the two differ in rows, there is one image, or a temperature is not positive.

    Example:
        >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> teacher = torch.eye(3)  # all are equally far from each other
        >>> round(relational(student, teacher, temperature=1.0, teacher_temperature=1.0).item(), 3)
        0.08
    """
    _check(student, teacher, temperature, teacher_temperature)
    n = len(student)
    if n < 2:
        raise ValueError("one image has no others; the loss needs 2 or more")
    with full_precision(student):
        z, t = COSINE.prepare(student), COSINE.prepare(teacher.detach())
        t = t.to(z.dtype)

        def divergence(similarities: Tensor, block: slice) -> Tensor:
            own = torch.arange(block.start, block.stop, device=z.device)[:, None]
            return divergence_of_rows(
                similarities / temperature, t[block] @ t.T / teacher_temperature, left_out=own
            )

        return map_rows(z, z, COSINE, divergence, equal_weights=True).mean()


def soft_neighbours(
    student: Tensor,
    teacher: Tensor,
    anchors: Tensor,
    *,
    temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Compare how similar each image is to a set of anchors, for student and teacher.

    The mean over rows i of the cross-entropy -sum over k of p_ik log q_ik, where p_i is the softmax
    over anchors of cos(t_i, a_k) / T_t, and q_i that of cos(s_i, a_k) / T_s.

    Source: Fang et al. 2021, https://arxiv.org/abs/2101.04731 (SEED), section 3.2: there the
    anchors are a queue of the teacher's features of earlier batches and, last, the image's own.
    CompRess (2020, see `relational`) has the same with its anchors from one queue, "1q".

    Args:
        student: [n, d] projections into the teacher's width, in any scale.
        teacher: [n, d] features of the same images; they get no gradient.
        anchors: [m, d] features of the teacher; they get no gradient. With the rows of `teacher`
            among them, each image's own is an anchor, as in SEED.
        temperature: divides the student's cosines; 0.2 in SEED.
        teacher_temperature: divides the teacher's cosines; 0.01 in SEED.

    Returns:
        Scalar in nats, at least the mean entropy of the teacher's distributions. Collapsed to a row
        that is equally near to all anchors: log(m).

    Raises:
        ValueError: shapes differ, there is no anchor, or a temperature is not positive.

    Example:
        >>> x = torch.eye(3)
        >>> loss = soft_neighbours(x, x, x, temperature=0.5, teacher_temperature=0.1)
        >>> round(loss.item(), 3)
        0.24
    """
    _check(student, teacher, temperature, teacher_temperature)
    if not (student.shape[1] == teacher.shape[1] == anchors.shape[1] and len(anchors)):
        shapes = ", ".join(str(tuple(x.shape)) for x in (student, teacher, anchors))
        raise ValueError(f"student, teacher and anchors need one width and an anchor: {shapes}")
    with full_precision(student):
        z = COSINE.prepare(student)
        t, a = (COSINE.prepare(x.detach()).to(z.dtype) for x in (teacher, anchors))

        def cross_entropy(similarities: Tensor, block: slice) -> Tensor:
            return cross_entropy_of_rows(
                similarities / temperature, t[block] @ a.T / teacher_temperature
            )

        return map_rows(z, a, COSINE, cross_entropy, equal_weights=True).mean()


def cross_entropy_of_rows(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """-sum over k of softmax(teacher)_k log softmax(student)_k of each row. [r, m] twice -> [r]."""
    return logits.logsumexp(1) - (teacher_logits.softmax(1) * logits).sum(1)


def divergence_of_rows(
    logits: Tensor, teacher_logits: Tensor, *, left_out: Tensor | None = None
) -> Tensor:
    """KL(softmax(teacher) | softmax(student)) of each row. [r, m] twice -> [r].

    `left_out` [r, 1] is the column of each row that takes no part, such as the image itself.
    """
    student, known = logits, teacher_logits
    if left_out is not None:
        student, known = (x.scatter(1, left_out, -torch.inf) for x in (logits, teacher_logits))
    log_total, known_log_total = log_sum_exp(student), log_sum_exp(known)
    p = (known - known_log_total[:, None]).exp()  # 0 where left out, so that any logit may stand
    return (p * (teacher_logits - logits)).sum(1) + log_total - known_log_total


def _check(
    student: Tensor, teacher: Tensor, temperature: float, teacher_temperature: float
) -> None:
    if len(student) != len(teacher):
        raise ValueError(f"student has {len(student)} rows and teacher {len(teacher)}")
    if not (temperature > 0 and teacher_temperature > 0):
        raise ValueError(
            f"temperatures must be above 0, not {temperature} and {teacher_temperature}"
        )
