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
from selfsup.methods.method import Method, TwoViews, Views, two
from selfsup.methods.teacher import Teacher


class TiCo(Method):
    """Contrast against a moving second moment in the place of a memory of negatives."""

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
        return self.teacher.chosen(self.encoder)

    def embed(self, views: Views) -> TwoViews:
        """The student sees the first views, the teacher the second."""
        first, second = two(views)
        return TwoViews(self.projector(self.encoder(first)), self.teacher(second))

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Over the global batch."""
        c = self.config
        moved = moving_second_moment(embeddings.first, self.second_moment, beta=c.beta)
        return tico(*embeddings, second_moment=moved, rho=c.rho)

    @torch.no_grad()
    def after_step(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> None:
        """The second moment takes in the batch, and the teacher follows."""
        self.second_moment.copy_(
            moving_second_moment(embeddings.first, self.second_moment, beta=self.config.beta)
        )
        self.teacher.follow(info, self.encoder, self.projector)
