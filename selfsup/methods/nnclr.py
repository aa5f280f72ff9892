"""NNCLR: the nearest neighbour of one view, among earlier images, is the other view's positive.

Source: Dwibedi et al. 2021, https://arxiv.org/abs/2104.14548.
"""

import torch
from torch import Tensor

from selfsup.config import NNCLRConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.numerics import normalize
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.contrastive import info_nce
from selfsup.losses.row_blocks import parts
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, Targets, Views, two_apart


class NNCLR(Method):
    """Positives are other images that look alike, found in a queue of first views."""

    def __init__(self, encoder: Encoder, config: NNCLRConfig) -> None:
        """A projector of three layers, a norm after each, and a predictor of two."""
        super().__init__()
        require_positive(config, "temperature", "queue")
        self.encoder = encoder
        self.config = config
        hidden, dim = config.hidden, config.dim
        self.projector = mlp(encoder.dim, hidden, hidden, dim, norm=config.norm, end="norm")
        self.predictor = mlp(dim, hidden, dim, norm=config.norm)
        self.queue = Memory(config.queue, dim)

    def embed(self, views: Views) -> Targets:
        """[b, 2, 3, s, s] -> four of [b, dim]."""
        z = two_apart(self.encoder, self.projector, views)
        return Targets(*map(self.predictor, z), *(x.detach() for x in z))

    def loss(self, embeddings: Targets, labels: Tensor | None, info: StepInfo) -> Tensor:
        """The mean of both directions (equation 4): a view's neighbour against all predictions.

        While the queue is empty a view is its own neighbour.
        """
        t, support = self.config.temperature, self.queue.held()[0]
        first, second = (nearest(z, support) for z in embeddings[2:])
        one = info_nce(first, embeddings.second, temperature=t)
        return (one + info_nce(second, embeddings.first, temperature=t)) / 2

    def after_step(self, embeddings: Targets, labels: Tensor | None, info: StepInfo) -> None:
        """The first views can be neighbours in later steps."""
        self.queue.add(embeddings.first_target)

    def negatives(self, batch: int) -> int:
        """The other images' predictions."""
        return batch - 1


@torch.no_grad()
def nearest(z: Tensor, support: Tensor) -> Tensor:
    """The row of `support` with the highest cosine to each row of z, or z where there is none.

    [n, d], [q, d] -> [n, d], a block of rows at a time.
    """
    if len(support) == 0:
        return z
    rows = normalize(support.to(z.dtype))
    found = [(normalize(z[part]) @ rows.T).argmax(1) for part in parts(len(z), len(rows))]
    return support.to(z.dtype)[torch.cat(found)]
