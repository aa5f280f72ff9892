"""Contrastive losses: pull two views of an image together, push other images apart.

Every loss here is a pure function of the embeddings of the whole global batch. It does not own a
projector, a queue or a temperature, and knows nothing of processes.

Shape letters: n images, d embedding width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.numerics import at_least_float32, full_precision, normalize


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR, equation 1).

    Each of the 2n embeddings has one positive, its image's other view, and 2n - 2 negatives:
    the mean over 2n anchors of -log(exp(s_ip / T) / sum over j != i of exp(s_ij / T)).

    Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709, section 2.1. As there, a view is
    never its own negative. (The paper's TensorFlow code returns twice this value.)

    Args:
        a: [n, d] embeddings of the first views, in any scale.
        b: [n, d] embeddings of the second views; row i is the image of `a[i]`.
        temperature: divides cosine similarities; 0.1 to 0.5 is usual. Lower weighs the hardest
            negatives more.

    Returns:
        Scalar, in nats. Chance is log(2n - 1): embeddings that all agree score that too, with
        gradient zero.

    Raises:
        ValueError: the views differ in shape, or the temperature is not positive.
    """
    if a.shape != b.shape:
        raise ValueError(f"views differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    n = len(a)
    with full_precision(a):  # half precision blurs similarities
        z = normalize(at_least_float32(torch.cat([a, b])))
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # [2n, 2n]
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, positive)
