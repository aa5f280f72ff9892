"""VICReg: two views agree, every dimension varies, and no two dimensions vary together.

Source: Bardes et al. 2022, https://arxiv.org/abs/2105.04906.
"""

from torch import Tensor

from selfsup.config import VICRegConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.covariance import vicreg
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, TwoViews, Views, project_views_separately


class VICReg(Method[TwoViews]):
    """Variances and covariances are of the global batch, for each view separately."""

    uses_labels = False

    def __init__(self, encoder: Encoder, config: VICRegConfig) -> None:
        """A wide projector of three layers without a norm after the last."""
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
        return vicreg(
            *embeddings, invariance=c.invariance, variance=c.variance, covariance=c.covariance
        )
