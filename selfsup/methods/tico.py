"""TiCo: two views attract, and embeddings avoid the directions that are used most.

Source: Zhu et al. 2022, https://arxiv.org/abs/2206.10698.
"""

import torch
from torch import Tensor

from selfsup.config import TiCoConfig
from selfsup.config.pretraining import require_fraction
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.covariance import moving_second_moment, tico
from selfsup.methods.heads import mlp
from selfsup.methods.method import Method, TwoViews, Views, two_views
from selfsup.methods.teacher import Teacher


class TiCo(Method[TwoViews]):
    """Contrast with a moving average of the second moment instead of a memory of negatives."""

    uses_labels = False
    compares_networks = True
    second_moment: Tensor

    def __init__(self, encoder: Encoder, config: TiCoConfig) -> None:
        """A projector of two layers, as in BYOL, and a second moment of zero."""
        super().__init__()
        require_fraction(config, "beta")
        self.encoder = encoder
        self.config = config
        self.projector = mlp(
            encoder.dim, config.hidden, config.dim, norm=config.norm, end="unbiased"
        )
        self.teacher = Teacher(config.teacher, encoder, self.projector)
        self.register_buffer("second_moment", torch.zeros(config.dim, config.dim))

    @property
    def exported(self) -> Encoder:
        """The student's, as in the paper, or the teacher's."""
        return self.teacher.exported(self.encoder)

    def embed(self, views: Views) -> TwoViews:
        """Project the first views by the student and the second by the teacher."""
        first, second = two_views(views)
        return TwoViews(self.projector(self.encoder(first)), self.teacher(second))

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss over the global batch."""
        c = self.config
        moment = moving_second_moment(embeddings.first, self.second_moment, beta=c.beta)
        return tico(*embeddings, second_moment=moment, rho=c.rho)

    @torch.no_grad()
    def after_step(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> None:
        """Update the second moment with the batch, and the teacher."""
        self.second_moment.copy_(
            moving_second_moment(embeddings.first, self.second_moment, beta=self.config.beta)
        )
        self.teacher.update(info, self.encoder, self.projector)
