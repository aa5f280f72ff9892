"""SimCLR: two views of an image attract, those of other images repel.

Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709.
"""

from torch import Tensor, nn

from selfsup.config import SimCLRConfig
from selfsup.encoder import Encoder
from selfsup.losses.contrastive import nt_xent
from selfsup.methods.method import Method, TwoViews


class SimCLR(Method):
    """An encoder with a projector of two layers, thrown away after training."""

    def __init__(self, encoder: Encoder, config: SimCLRConfig) -> None:
        """The projector has a norm after both layers, as the paper's code has."""
        super().__init__()
        self.encoder = encoder
        self.temperature = config.temperature
        norm = nn.BatchNorm1d if config.norm == "batch" else nn.LayerNorm
        self.projector = nn.Sequential(
            nn.Linear(encoder.dim, config.hidden, bias=False),
            norm(config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.dim, bias=False),
            norm(config.dim),
        )

    def embed(self, views: Tensor) -> TwoViews:
        """Both views through the network at once. [b, 2, 3, s, s] -> two of [b, dim]."""
        assert views.shape[1] == 2, "SimCLR compares two views"
        z = self.projector(self.encoder(views.transpose(0, 1).flatten(0, 1)))  # [2b, dim]
        return TwoViews(*z.chunk(2))

    def loss(self, embeddings: TwoViews, labels: Tensor | None) -> Tensor:
        """NT-Xent over the global batch."""
        return nt_xent(embeddings.first, embeddings.second, temperature=self.temperature)
