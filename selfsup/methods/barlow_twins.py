"""Barlow Twins: two views agree in every dimension, and no two dimensions are correlated.

Source: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230.
"""

from torch import Tensor

from selfsup.config import BarlowTwinsConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.covariance import barlow_twins
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, TwoViews, Views, project_views_separately


class BarlowTwins(Method[TwoViews]):
    """The correlation of two views over the global batch becomes the identity."""

    uses_labels = False

    def __init__(self, encoder: Encoder, config: BarlowTwinsConfig) -> None:
        """A wide projector of three layers; the last has no norm, the loss standardises."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        widths = (config.hidden, config.hidden, config.dim)
        self.projector = mlp(encoder.dim, *widths, norm=config.norm, end="unbiased")

    def embed(self, views: Views) -> TwoViews:
        """Project each view separately. [b, 2, 3, s, s] -> two of [b, dim]."""
        return project_views_separately(self.encoder, self.projector, views)

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss over the global batch."""
        c = self.config
        return barlow_twins(*embeddings, off_diagonal=c.off_diagonal, scale=c.scale)
