"""Losses of prototypes: a view predicts the prototypes that another view belongs to.

The scores of the whole batch against all prototypes are avoided where possible: DINO's 65,536
prototypes at 1,024 images and ten crops would be 2.7 GB of student scores and 0.5 GB of the
teacher's. Processes gather the rows before the last layer, 256 wide (12.6 MB for both). The last
layer belongs to the loss, which multiplies a block of rows at a time.

DINO's centre is a moving average of the teacher's scores. Example for one prototype, at momentum
0.9, where the centre is 0 and the mean score of a batch is 2:

    step 1   centre = 0.9 x 0   + 0.1 x 2 = 0.2   subtracted from the scores of step 2
    step 2   centre = 0.9 x 0.2 + 0.1 x 2 = 0.38
    mean     of rows (1, 3) is 2, of unit rows z_i . w it is mean(z) . w: no scores are needed

Shape letters: n images, v views, t views that are targets, k prototypes, d embedding width, r rows
of a block.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from selfsup.core.numerics import at_least_float32, full_precision, normalize
from selfsup.losses.measures import Similarity
from selfsup.losses.row_blocks import map_rows, split_rows

DOT = Similarity(normalize=False)
Target = Callable[[slice, int], Tensor]
"""Gives the target probabilities of a slice of images and a target view: [images, k]."""


def _unit(x: Tensor) -> Tensor:
    """Scale rows to length 1, in float32 or float64. [..., d] -> [..., d]."""
    return normalize(at_least_float32(x).flatten(0, -2)).view(x.shape)


def swapped_prediction(
    students: Tensor, prototypes: Tensor, target: Target, *, targets: int, temperature: float
) -> Tensor:
    """Cross-entropy of each view's prediction with every other view's target probabilities.

    The mean over target views t and views s != t and over n images of -sum over k of
    q_t log softmax(s . prototypes / temperature).

    Args:
        students: [n, v, d] embeddings of length 1; view t of them is the same view as target t.
        prototypes: [k, d].
        target: gives q of a slice of images and a target view, without gradient.
        targets: number of target views.
        temperature: divides the scores.

    Returns:
        Scalar, in nats.

    Raises:
        ValueError: there is only one view.

    Example:
        >>> students = torch.eye(2)[None]  # one image, two views
        >>> def target(images, view):  # both views belong to prototype 0
        ...     return torch.tensor([[1.0, 0.0]])
        >>> loss = swapped_prediction(students, torch.eye(2), target, targets=2, temperature=1.0)
        >>> round(loss.item(), 3)  # views 0 and 1 cost 0.313 and 1.313
        0.813
    """
    n, v, d = students.shape
    if v < 2:
        raise ValueError("a view predicts another view, but there is only one; use 2 or more")
    x = at_least_float32(students).reshape(n * v, d)
    y = at_least_float32(prototypes).to(x.dtype)

    def cross_entropy(scores: Tensor, block: slice) -> Tensor:
        """Sum over targets, of rows in the order image, view: [r, k] -> [r]."""
        row = torch.arange(block.start, block.stop, device=scores.device)
        image, view = row // v, row % v
        first = block.start // v
        images = slice(first, (block.stop - 1) // v + 1)
        q = torch.zeros_like(scores)
        for t in range(targets):
            predicts = (view != t)[:, None]
            q += target(images, t)[image - first] * predicts
        logits = scores / temperature
        count = targets - (view < targets).to(logits.dtype)
        return count * logits.logsumexp(1) - (q * logits).sum(1)

    with full_precision(x):
        total = map_rows(x, y, DOT, cross_entropy, equal_weights=True).sum()
    return total / (n * targets * (v - 1))


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, rounds: int) -> Tensor:
    """Codes that use all prototypes equally: [n, k] scores to probabilities (SwAV, appendix A).

    exp(scores / epsilon), scaled in turn so that each prototype has 1 / k of the whole and each
    image 1 / n, and at the end each image 1. In logarithms, so that no epsilon overflows or leaves
    an image without any, as float16 and float32 do in the exponential form.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882; Cuturi 2013,
    https://arxiv.org/abs/1306.0895.

    Example:
        >>> scores = torch.tensor([[1.0, 0.0], [1.0, 0.5]])  # both images prefer prototype 0
        >>> codes = sinkhorn(scores, epsilon=0.1, rounds=99)
        >>> [[round(p, 2) for p in row] for row in codes.tolist()]
        [[0.92, 0.08], [0.08, 0.92]]
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
    """SwAV: each view predicts the codes of the first views (equations 1, 2; multi-crop).

    `swapped_prediction` with targets from `sinkhorn` over all images of one view.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882, equation 6.

    Args:
        z: [n, v, d] embeddings, in any scale.
        prototypes: [k, d] of length 1.
        temperature: divides the students' scores.
        epsilon: smoothness of the codes.
        rounds: iterations of Sinkhorn's algorithm.
        codes: number of the first views that have codes.
        queue: [q, codes, d] embeddings of earlier batches: they take part in Sinkhorn's algorithm,
            and their codes are dropped.

    Returns:
        Scalar, in nats. Collapsed: log(sum of exp(s / T)) - mean(s / T) over a row's scores s, at
        least log(k), with a gradient towards the middle of the prototypes.

    Raises:
        ValueError: there is only one view.

    Example:
        >>> z = torch.eye(2)[:, None].repeat(1, 2, 1)  # two images, two equal views each
        >>> round(swav(z, torch.eye(2), temperature=0.1, epsilon=0.05, rounds=3).item(), 4)
        0.0
        >>> round(swav(z.flip(2), torch.eye(2), temperature=1.0, epsilon=0.05, rounds=3).item(), 4)
        0.3133
    """
    n = len(z)
    with full_precision(z):
        z = _unit(z)
        fixed = prototypes.detach().to(z.dtype)
        with torch.no_grad():
            rows = [z[:, t] for t in range(codes)]
            if queue is not None:
                old = _unit(queue.to(z.dtype))
                rows = [torch.cat([view, old[:, t]]) for t, view in enumerate(rows)]
            q = [sinkhorn(view @ fixed.T, epsilon=epsilon, rounds=rounds)[:n] for view in rows]
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
    """DINO: each view of the student predicts the teacher's other views (equations 1 to 3).

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
        ValueError: there is only one view.

    Example:
        >>> z = torch.eye(2)[:, None].repeat(1, 2, 1)  # two images, two equal views each
        >>> w, centre = torch.eye(2), torch.full((2,), 0.5)
        >>> loss = dino(z, w, z, w, centre, temperature=0.1, teacher_temperature=0.04)
        >>> round(loss.item(), 4)
        0.0
    """
    with full_precision(students):
        x, layer = _unit(students), _unit(prototypes)
        with torch.no_grad():
            teacher_rows, teacher_layer = _unit(teachers), _unit(teacher_prototypes)

    def target(images: slice, t: int) -> Tensor:
        with torch.no_grad():
            scores = teacher_rows[images, t] @ teacher_layer.T - centre
            return (scores / teacher_temperature).softmax(1)

    return swapped_prediction(x, layer, target, targets=teachers.shape[1], temperature=temperature)


def ibot(
    students: Tensor,
    prototypes: Tensor,
    teachers: Tensor,
    teacher_prototypes: Tensor,
    centre: Tensor,
    weights: Tensor,
    *,
    temperature: float,
    teacher_temperature: float,
    rows: Tensor | None = None,
) -> Tensor:
    """iBOT: the student predicts, for each masked patch, what the teacher makes of the whole view.

    The sum over patches of weight x -sum over k of q log softmax(student . prototypes /
    temperature), with q = softmax((teacher . its prototypes - centre) / its temperature). All rows
    and prototypes at length 1, as in `dino`.

    Source: Zhou et al. 2022, https://arxiv.org/abs/2111.07832, equation 2.

    Args:
        students: [n, d] bottleneck rows of the student's patches, in any scale.
        prototypes: [k, d] the student's last layer, in any scale.
        teachers: [n, d] the teacher's rows of the same patches.
        teacher_prototypes: [k, d] its last layer.
        centre: [k], subtracted from the teacher's scores.
        weights: [n]: 1 / (masked patches of its view x views) is the mean over views of the mean
            over masked patches. Rows of weight 0 are left out.
        temperature: of the student.
        teacher_temperature: lower is sharper.
        rows: indices of the rows whose weight is not 0, if they are known; else a GPU is waited
            for.

    Returns:
        Scalar, in nats; 0 if all weights are 0.

    Example:
        >>> z, w, centre = torch.eye(2), torch.eye(2), torch.full((2,), 0.5)
        >>> weights, settings = torch.tensor([1.0, 0.0]), {"teacher_temperature": 0.04}
        >>> loss = ibot(z.flip(0), w, z, w, centre, weights, temperature=1.0, **settings)
        >>> round(loss.item(), 4)  # the first patch predicts the other prototype
        1.3133
    """
    rows = weights.nonzero()[:, 0] if rows is None else rows
    if not len(rows):
        return (at_least_float32(students) * 0).sum()
    with full_precision(students):
        x, layer = _unit(students[rows]), _unit(prototypes)
        with torch.no_grad():
            factors = weights[rows].to(x.dtype)
            teacher_rows, teacher_layer = _unit(teachers[rows]), _unit(teacher_prototypes)

    def cross_entropy(scores: Tensor, block: slice) -> Tensor:
        """Of patches, times their weights: [r, k] -> [r]."""
        with torch.no_grad():
            taught = teacher_rows[block] @ teacher_layer.T - centre
            q = (taught / teacher_temperature).softmax(1)
        logits = scores / temperature
        return factors[block] * (logits.logsumexp(1) - (q * logits).sum(1))

    with full_precision(x):
        return map_rows(x, layer, DOT, cross_entropy, equal_weights=True).sum()


@torch.no_grad()
def prototypes_used(
    rows: Tensor, prototypes: Tensor, centre: Tensor | None, *, temperature: float
) -> float:
    """Effective number of prototypes that a batch uses: exp of the entropy of its mean softmax.

    softmax((rows . prototypes - centre) / temperature), both at length 1, a block of rows at a
    time. [n, d], [k, d], [k] -> a number from 1, where all rows use one prototype, to k.

    Example:
        >>> round(prototypes_used(torch.eye(2), torch.eye(2), None, temperature=0.01), 3)
        2.0
    """
    with full_precision(rows):
        z, layer = _unit(rows), _unit(prototypes)
        mean = z.new_zeros(len(layer))
        for block in split_rows(len(z), len(layer), z.device):
            scores = z[block] @ layer.T.to(z.dtype)
            scores = scores if centre is None else scores - centre
            mean += (scores / temperature).softmax(1).sum(0) / len(z)
        return float(torch.special.entr(mean).sum().exp())


@torch.no_grad()
def moving_centre(
    centre: Tensor, teachers: Tensor, teacher_prototypes: Tensor, *, momentum: float
) -> Tensor:
    """Update DINO's centre with a batch (equation 4). [k], [n, t, d], [k, d] -> [k].

    The mean of the scores is the score of the mean row, so the scores are never held.

    Example:
        >>> teacher = torch.eye(2)[:1, None]  # one image, one view, at prototype 0
        >>> moving_centre(torch.zeros(2), teacher, torch.eye(2), momentum=0.5).tolist()
        [0.5, 0.0]
    """
    with full_precision(teachers):
        scores = _unit(teacher_prototypes) @ _unit(teachers).mean((0, 1))
        return momentum * centre.to(scores.dtype) + (1 - momentum) * scores
