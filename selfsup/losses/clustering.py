"""Losses in which a view predicts which prototypes another view belongs to.

Scores of the whole batch against all prototypes are never held where that can be avoided: DINO's
65,536 prototypes at 1,024 images and ten crops would be 2.7 GB of student scores and 0.5 GB of the
teacher's. What is gathered is the rows before the last layer, 256 wide (12.6 MB for both), and the
layer itself belongs to the loss, which multiplies a few rows at a time.

Shape letters: n images, v views, t views that are targets, k prototypes, d embedding width, r rows
of a block.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from selfsup.core.numerics import at_least_float32, full_precision, normalize
from selfsup.losses.measures import Similarity
from selfsup.losses.row_blocks import each_row, parts

AS_THEY_ARE = Similarity(normalize=False)
Target = Callable[[slice, int], Tensor]
"""Probabilities of the images `slice` by target view: [images, k]."""


def _unit(x: Tensor) -> Tensor:
    """Rows at length 1, in float32 at least. [..., d] -> [..., d]."""
    return normalize(at_least_float32(x).flatten(0, -2)).view(x.shape)


def swapped_prediction(
    students: Tensor, prototypes: Tensor, target: Target, *, targets: int, temperature: float
) -> Tensor:
    """Cross-entropy of each view against every other view's target probabilities.

    The mean over target views t and views s != t and over n images of -sum over k of
    q_t log softmax(s . prototypes / temperature).

    Args:
        students: [n, v, d] embeddings of length 1; view t of them is the same view as target t.
        prototypes: [k, d].
        target: gives q of a slice of images and a target view, without gradient.
        targets: how many target views there are.
        temperature: divides the scores.

    Returns:
        Scalar, in nats.

    Raises:
        ValueError: there is nothing to predict: one view alone.
    """
    n, v, d = students.shape
    if v < 2:
        raise ValueError("a view predicts another one; there is only one")
    x = at_least_float32(students).reshape(n * v, d)
    y = at_least_float32(prototypes).to(x.dtype)

    def value(scores: Tensor, part: slice) -> Tensor:
        """Of rows in the order image, view: [r, k] -> [r]."""
        row = torch.arange(part.start, part.stop, device=scores.device)
        image, view = row // v, row % v
        first = part.start // v
        images = slice(first, (part.stop - 1) // v + 1)
        q = torch.zeros_like(scores)
        for t in range(targets):
            others = (view != t)[:, None]
            q += target(images, t)[image - first] * others
        logits = scores / temperature
        count = targets - (view < targets).to(logits.dtype)
        return count * logits.logsumexp(1) - (q * logits).sum(1)

    with full_precision(x):
        total = each_row(x, y, AS_THEY_ARE, value).sum()
    return total / (n * targets * (v - 1))


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, rounds: int) -> Tensor:
    """Codes that use all prototypes alike: [n, k] scores to probabilities (SwAV, appendix A).

    exp(scores / epsilon), scaled in turn so that each prototype has 1 / k of the whole and each
    image 1 / n, and at the end each image 1. In logarithms, so that no epsilon overflows or leaves
    an image without any, as float16 and float32 do in the exponential form.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882; Cuturi 2013,
    https://arxiv.org/abs/1306.0895.
    """
    with full_precision(scores):
        q = at_least_float32(scores) / epsilon
        for _ in range(rounds):
            q = q - q.logsumexp(0, keepdim=True)
            q = q - q.logsumexp(1, keepdim=True)
        return q.softmax(1)


def swav(
    z: Tensor,
    prototypes: Tensor,
    *,
    temperature: float,
    epsilon: float,
    rounds: int,
    codes: int = 2,
    queue: Tensor | None = None,
) -> Tensor:
    """Each view predicts the codes of the first views (SwAV, equations 1 and 2, with multi-crop).

    `swapped_prediction` with targets from `sinkhorn` over all images of one view.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882, equation 6.

    Args:
        z: [n, v, d] embeddings, in any scale.
        prototypes: [k, d] of length 1.
        temperature: divides the students' scores.
        epsilon: smoothness of the codes.
        rounds: of Sinkhorn's algorithm.
        codes: how many of the first views have codes.
        queue: [q, codes, d] embeddings of earlier batches, whose codes are found along and dropped.

    Returns:
        Scalar, in nats. Collapsed: log(sum of exp(s / T)) - mean(s / T) over a row's scores s, at
        least log(k), with a gradient towards the middle of the prototypes.

    Raises:
        ValueError: there is one view alone.
    """
    n = len(z)
    with full_precision(z):
        z = _unit(z)
        fixed = prototypes.detach().to(z.dtype)
        with torch.no_grad():
            known = [z[:, t] for t in range(codes)]
            if queue is not None:
                old = _unit(queue.to(z.dtype))
                known = [torch.cat([own, old[:, t]]) for t, own in enumerate(known)]
            q = [sinkhorn(rows @ fixed.T, epsilon=epsilon, rounds=rounds)[:n] for rows in known]
    return swapped_prediction(
        z, prototypes, lambda images, t: q[t][images], targets=codes, temperature=temperature
    )


def dino(
    students: Tensor,
    prototypes: Tensor,
    teachers: Tensor,
    teacher_prototypes: Tensor,
    centre: Tensor,
    *,
    temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Each view of the student predicts the teacher's other views (DINO, equations 1 to 3).

    `swapped_prediction` with targets softmax((teacher . its prototypes - centre) / its
    temperature). All rows and prototypes at length 1: the weight-normalised last layer of the
    paper's code with its lengths at 1.

    Source: Caron et al. 2021, https://arxiv.org/abs/2104.14294.

    Args:
        students: [n, v, d] bottleneck rows, in any scale; view t is the same as teacher view t.
        prototypes: [k, d] the student's last layer, in any scale.
        teachers: [n, t, d] the teacher's bottleneck rows.
        teacher_prototypes: [k, d] its last layer.
        centre: [k], subtracted from the teacher's scores.
        temperature: of the student.
        teacher_temperature: lower is sharper.

    Returns:
        Scalar, in nats. Collapsed with the centre at the teacher's scores: log(sum of exp(s / T)) -
        mean(s / T) over a row's scores s, at least log(k).

    Raises:
        ValueError: there is one view alone.
    """
    with full_precision(students):
        unit, layer = _unit(students), _unit(prototypes)
        with torch.no_grad():
            known, fixed = _unit(teachers), _unit(teacher_prototypes)

    def target(images: slice, t: int) -> Tensor:
        with torch.no_grad():
            scores = known[images, t] @ fixed.T - centre
            return (scores / teacher_temperature).softmax(1)

    return swapped_prediction(
        unit, layer, target, targets=teachers.shape[1], temperature=temperature
    )


@torch.no_grad()
def prototypes_used(
    rows: Tensor, prototypes: Tensor, centre: Tensor | None, *, temperature: float
) -> float:
    """How many prototypes a batch uses, in effect: exp of the entropy of its mean probabilities.

    softmax((rows . prototypes - centre) / temperature), both at length 1, a block of rows at a
    time. [n, d], [k, d], [k] -> a number from 1, all rows in one place, to k.
    """
    with full_precision(rows):
        z, layer = _unit(rows), _unit(prototypes)
        mean = z.new_zeros(len(layer))
        for part in parts(len(z), len(layer)):
            scores = z[part] @ layer.T.to(z.dtype)
            scores = scores if centre is None else scores - centre
            mean += (scores / temperature).softmax(1).sum(0) / len(z)
        return float(torch.special.entr(mean).sum().exp())


@torch.no_grad()
def moving_centre(
    centre: Tensor, teachers: Tensor, teacher_prototypes: Tensor, *, momentum: float
) -> Tensor:
    """DINO's centre after a batch (equation 4). [k], [n, t, d], [k, d] -> [k].

    The mean of the scores is the score of the mean row, so they are never held.
    """
    with full_precision(teachers):
        scores = _unit(teacher_prototypes) @ _unit(teachers).mean((0, 1))
        return momentum * centre.to(scores.dtype) + (1 - momentum) * scores
