"""Distillation beside a ranking loss: the embedding ranks, and keeps what a teacher knows.

Source: Roth et al. 2021, https://arxiv.org/abs/2009.08348 (S2SD): similarities within the batch,
added to any ranking loss; there the teacher is trained too, here it is frozen.

Shape letters: b local images, n images of the global batch, d width of the embedding, e width of
the teacher.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfsup.config import RankingDistilConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.distillation import feature_cosine, relational
from selfsup.methods.distil import LiveTeacher, StoredFeatures
from selfsup.methods.health import Remedies
from selfsup.methods.method import Method, OneView, Views


class RankedAndDistilled(NamedTuple):
    """What ranks, what follows the teacher, and the teacher's features."""

    embedding: Tensor
    """[b, d]."""
    student: Tensor
    """[b, d], or [b, e] with the cosine."""
    target: Tensor
    """[b, e]; [b, 0] until `look_up`."""


class DistilledRanking(Method[RankedAndDistilled]):
    """A ranking method, unchanged, to whose loss distillation is added."""

    def __init__(
        self,
        ranking: Method[OneView],
        config: RankingDistilConfig,
        targets: StoredFeatures | LiveTeacher,
    ) -> None:
        """Take the method that ranks, and what has the teacher's features.

        Raises:
            UserError: a weight or a temperature is not above 0.
        """
        super().__init__()
        require_positive(config, "weight", "temperature", "teacher_temperature", prefix="distil")
        self.ranking = ranking
        self.config = config
        self.targets = targets
        self.loss_lr, self.loss_decays = ranking.loss_lr, ranking.loss_decays
        width = ranking.encoder.dim
        self.head = nn.Linear(width, targets.dim) if config.loss == "cosine" else nn.Identity()

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]  # a second name would store it twice
        """That of the ranking method."""
        return self.ranking.encoder

    def embed(self, views: Views) -> RankedAndDistilled:
        """Embed the only view, and let a live teacher see it."""
        (z,) = self.ranking.embed(views)
        seen = self.targets.of_views(views)
        target = z.detach()[:, :0] if seen is None else seen[:, 0]
        return RankedAndDistilled(z, self.head(z), target)

    def look_up(self, embeddings: RankedAndDistilled, positions: Tensor) -> RankedAndDistilled:
        """Add the stored features of whole images."""
        rows = self.targets.of_images(positions, embeddings.embedding)
        return embeddings if rows is None else embeddings._replace(target=rows)

    def loss(self, embeddings: RankedAndDistilled, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the ranking loss, and add that of distillation by its weight."""
        ranking = self.ranking.loss(OneView(embeddings.embedding), labels, info)
        return ranking + self.config.weight * self._follow(embeddings)

    def _follow(self, embeddings: RankedAndDistilled) -> Tensor:
        """Compute the loss of distillation."""
        _, student, target = embeddings
        match self.config.loss:
            case "relational":
                t, teacher_t = self.config.temperature, self.config.teacher_temperature
                return relational(student, target, temperature=t, teacher_temperature=teacher_t)
            case "cosine":
                return feature_cosine(student, target)

    def after_step(
        self, embeddings: RankedAndDistilled, labels: Tensor | None, info: StepInfo
    ) -> None:
        """Let the ranking method add the batch to its memory."""
        self.ranking.after_step(OneView(embeddings.embedding), labels, info)

    @torch.no_grad()
    def signs(
        self, embeddings: RankedAndDistilled, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Compute the signs of the ranking method, and `distil`: the loss of distillation alone."""
        signs = self.ranking.signs(OneView(embeddings.embedding), labels, info)
        return signs | {"distil": self._follow(embeddings).item()}

    def remedies(self, info: StepInfo) -> Remedies:
        """Those of the ranking method."""
        return self.ranking.remedies(info)

    def loss_parameters(self) -> list[nn.Parameter]:
        """Those of the ranking method."""
        return self.ranking.loss_parameters()
