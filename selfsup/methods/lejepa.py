"""LeJEPA: views predict their image's centre, and embeddings are normal in every direction.

Source: Balestriero & LeCun 2025, https://arxiv.org/abs/2511.08544.
"""

import torch
from torch import Tensor

from selfsup.config import LeJEPAConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.core.transfers import send
from selfsup.encoders.encoder import Encoder
from selfsup.losses.gaussian import lejepa
from selfsup.methods.heads import mlp
from selfsup.methods.method import AllViews, Method, Views, project_all_views


class LeJEPA(Method[AllViews]):
    """No teacher, no stop-gradient, no negatives: one regulariser, one weight."""

    uses_labels = False

    def __init__(self, encoder: Encoder, config: LeJEPAConfig, *, large: int) -> None:
        """A projector of three layers without a norm after the last.

        The mean of the first `large` views is the centre that all views predict.
        """
        super().__init__()
        require(0 < config.weight < 1, f"--method.weight must be between 0 and 1: {config.weight}")
        require_positive(config, "slices")
        self.encoder = encoder
        self.config = config
        widths = (config.hidden, config.hidden, config.dim)
        self.projector = mlp(encoder.dim, *widths, norm=config.norm)
        self.large = large

    def embed(self, views: Views) -> AllViews:
        """Embed each size of crops in one pass, then project all of them in one pass."""
        return AllViews(project_all_views(self.encoder, self.projector, views))

    def loss(self, embeddings: AllViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss over the global batch, with directions drawn for this step."""
        z, c = embeddings.z, self.config
        g = info.generator("slices")
        directions = torch.randn(c.slices, z.shape[2], generator=g, dtype=torch.float64)
        return lejepa(z, send(directions, z.device, z.dtype), centres=self.large, weight=c.weight)
