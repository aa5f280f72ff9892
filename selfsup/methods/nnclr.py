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
from selfsup.losses.row_blocks import split_rows
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, Predictions, Views, project_views_separately


class NNCLR(Method[Predictions]):
    """Positives are similar images from a queue of first views."""

    uses_labels = False

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

    def embed(self, views: Views) -> Predictions:
        """Predict from both views; the targets are their projections: four of [b, dim]."""
        z = project_views_separately(self.encoder, self.projector, views)
        return Predictions(*map(self.predictor, z), *(x.detach() for x in z))

    def loss(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Average both directions (equation 4): a view's neighbour against all predictions.

        While the queue is empty a view is its own neighbour.
        """
        t, support = self.config.temperature, self.queue.contents()[0]
        first = nearest_rows(embeddings.first_target, support)
        second = nearest_rows(embeddings.second_target, support)
        forwards = info_nce(first, embeddings.second, temperature=t)
        backwards = info_nce(second, embeddings.first, temperature=t)
        return (forwards + backwards) / 2

    def after_step(self, embeddings: Predictions, labels: Tensor | None, info: StepInfo) -> None:
        """Add the first views to the queue."""
        self.queue.add(embeddings.first_target)

    def negatives(self, batch: int) -> int:
        """Predictions of the other images."""
        return batch - 1


@torch.no_grad()
def nearest_rows(z: Tensor, support: Tensor) -> Tensor:
    """Select the row of `support` with the highest cosine to each row of z; z if it is empty.

    [n, d], [q, d] -> [n, d], a block of rows at a time.
    """
    if len(support) == 0:
        return z
    rows = normalize(support.to(z.dtype))
    blocks = split_rows(len(z), len(rows), z.device)
    nearest = torch.cat([(normalize(z[block]) @ rows.T).argmax(1) for block in blocks])
    return support.to(z.dtype)[nearest]
