"""Triplet fine-tuning with batch-hard mining over the global batch.

Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737.
"""

import torch
from torch import Tensor

from selfsup.config import TripletConfig
from selfsup.encoder import Encoder
from selfsup.losses.triplet import gaps, triplet_margin, triplet_soft
from selfsup.methods.method import Method, OneView
from selfsup.mining import batch_hard
from selfsup.monitor import collapse_signs
from selfsup.numerics import Distance


class Triplet(Method):
    """An encoder whose last layer is the embedding, so that the head is exported with it."""

    def __init__(self, encoder: Encoder, config: TripletConfig) -> None:
        """Give the encoder a linear head of `config.dim`, unless that is 0 or there already."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.distance = Distance(config.distance, config.normalize)
        if config.dim and encoder.model.num_classes != config.dim:
            encoder.model.reset_classifier(config.dim)

    def embed(self, views: Tensor) -> OneView:
        """[b, 1, 3, s, s] -> [b, dim]."""
        assert views.shape[1] == 1, "ranking sees one view of each image"
        return OneView(self.encoder(views[:, 0]))

    def loss(self, embeddings: OneView, labels: Tensor | None) -> Tensor:
        """Batch-hard triplets of the global batch, by margin or soft margin."""
        assert labels is not None
        z = embeddings.embedding
        triplets = batch_hard(z, labels, distance=self.distance)
        if self.config.soft:
            return triplet_soft(z, triplets, distance=self.distance)
        return triplet_margin(z, triplets, distance=self.distance, margin=self.config.margin)

    @torch.no_grad()
    def signs(self, embeddings: OneView, labels: Tensor | None) -> dict[str, float]:
        """Collapse signs, and how much there is left to learn from.

        active: share of anchors whose triplet still has a loss above zero.
        active_loss: mean loss of those anchors.
        from_margin: |loss - margin| (soft: |loss - log 2|), which goes to 0 as embeddings collapse.
        """
        assert labels is not None
        z = embeddings.embedding
        triplets = batch_hard(z, labels, distance=self.distance)
        gap = gaps(z, triplets, distance=self.distance)
        margin = 0.0 if self.config.soft else self.config.margin
        above = (gap + margin).clamp(min=0)
        active = above > 0
        each = torch.nn.functional.softplus(gap) if self.config.soft else above
        collapsed = torch.log(torch.tensor(2.0)).item() if self.config.soft else margin
        return {
            **collapse_signs(z),
            "active": active.float().mean().item(),
            "active_loss": (each[active].mean() if active.any() else each.sum() * 0).item(),
            "from_margin": abs(each.mean().item() - collapsed),
        }
