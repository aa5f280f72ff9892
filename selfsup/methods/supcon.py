"""Supervised contrastive learning: all views of a class attract, those of other classes repel.

Source: Khosla et al. 2020, https://arxiv.org/abs/2004.11362.
"""

import torch
from torch import Tensor

from selfsup.config import SupConConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.errors import UserError
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.similarity import supcon
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, TwoViews, Views, project_both_views


class SupCon(Method[TwoViews]):
    """SimCLR with labels: an image's positives are its other view and all of its class."""

    def __init__(self, encoder: Encoder, config: SupConConfig) -> None:
        """A projector of two layers without norms."""
        super().__init__()
        require_positive(config, "temperature")
        self.encoder = encoder
        self.config = config
        self.projector = mlp(encoder.dim, config.hidden, config.dim, norm=None)

    def embed(self, views: Views) -> TwoViews:
        """Project both views in one pass. [b, 2, 3, s, s] -> two of [b, dim]."""
        return project_both_views(self.encoder, self.projector, views)

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute SupCon (equation 2) over both views of the global batch.

        Raises:
            UserError: the images have no labels.
        """
        if labels is None:
            raise UserError("SupCon needs labels: put each class in a sub-folder, or use --labels")
        # an image without label (-1) is a class of its own: only its other view is its positive
        own = -1 - torch.arange(len(labels), device=labels.device)
        labels = torch.where(labels < 0, own, labels)
        return supcon(torch.cat(embeddings), labels.repeat(2), temperature=self.config.temperature)

    def negatives(self, batch: int) -> int:
        """All views of the other images, less those of the same class."""
        return 2 * batch - 2
