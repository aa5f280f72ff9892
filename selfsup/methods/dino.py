"""DINO: small and large views predict the output that a teacher has for the large ones.

Source: Caron et al. 2021, https://arxiv.org/abs/2104.14294.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfsup.config import DINOConfig
from selfsup.config.pretraining import require_fraction, require_positive
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.clustering import dino, moving_centre, prototypes_used
from selfsup.methods.heads import mlp
from selfsup.methods.method import Views, map_views, project_all_views
from selfsup.methods.prototypes import PrototypeMethod
from selfsup.methods.teacher import Teacher


class BottleneckRows(NamedTuple):
    """Outputs of the bottleneck, before the last layer."""

    student: Tensor
    """[b, v, dim] of all views, the large ones first."""
    teacher: Tensor
    """[b, t, dim] of the large views."""


def require_settings(config: DINOConfig) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: a temperature or the number of prototypes is not above 0, or a fraction is none.
    """
    require_positive(config, "temperature", "teacher_temperature", "teacher_start", "prototypes")
    require_fraction(config, "warmup", "centre", "frozen")


def dino_head(width: int, config: DINOConfig) -> tuple[nn.Module, nn.Parameter]:
    """Make a head of three layers with GELU from features of that width, and its prototypes."""
    widths = (config.hidden, config.hidden, config.dim)
    projector = mlp(width, *widths, norm=None, activation=nn.GELU)
    prototypes = nn.Parameter(torch.empty(config.prototypes, config.dim))
    for weight in (*projector.parameters(), prototypes):
        if weight.ndim > 1:
            nn.init.trunc_normal_(weight, std=0.02)
        else:
            nn.init.zeros_(weight)
    return projector, prototypes


def teacher_temperature(config: DINOConfig, info: StepInfo) -> float:
    """Temperature of the teacher: rises linearly from its start over the warm-up."""
    start, end = config.teacher_start, config.teacher_temperature
    progress = min(1.0, info.progress / config.warmup) if config.warmup else 1.0
    return start + (end - start) * progress


class DINO(PrototypeMethod[BottleneckRows]):
    """The last layer belongs to the loss, since its outputs are too large to gather."""

    loss_decays = True  # as in the paper's code
    config: DINOConfig
    centre: Tensor
    teacher_prototypes: Tensor

    def __init__(self, encoder: Encoder, config: DINOConfig) -> None:
        """A head of three layers with GELU, then the prototypes."""
        super().__init__()
        require_settings(config)
        self.encoder = encoder
        self.config = config
        self.projector, self.prototypes = dino_head(encoder.dim, config)
        self.teacher = Teacher(config.teacher, encoder, self.projector)
        self.register_buffer("teacher_prototypes", self.prototypes.detach().clone())
        self.register_buffer("centre", torch.zeros(config.prototypes))

    @property
    def exported(self) -> Encoder:
        """The teacher's, as in the paper, or the student's."""
        return self.teacher.exported(self.encoder)

    def embed(self, views: Views) -> BottleneckRows:
        """Embed each size of crops in one pass; the teacher embeds only the large ones.

        Raises:
            UserError: there is only one view.
        """
        count = sum(group.shape[1] for group in views)
        require(count > 1, f"DINO predicts one view from another; --views.views is {count}")
        student = project_all_views(self.encoder, self.projector, views)
        return BottleneckRows(student, map_views(self.teacher, views[0]))

    def temperature(self, info: StepInfo) -> float:
        """Temperature of the teacher, see `teacher_temperature`."""
        return teacher_temperature(self.config, info)

    def loss(self, embeddings: BottleneckRows, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss over the global batch, with the centre of earlier batches."""
        return dino(
            embeddings.student,
            self.prototypes,
            embeddings.teacher,
            self.teacher_prototypes,
            self.centre,
            temperature=self.config.temperature,
            teacher_temperature=self.temperature(info),
        )

    @torch.no_grad()
    def after_step(self, embeddings: BottleneckRows, labels: Tensor | None, info: StepInfo) -> None:
        """Update the centre with the batch, by the teacher that embedded it; then the teacher."""
        centre = moving_centre(
            self.centre, embeddings.teacher, self.teacher_prototypes, momentum=self.config.centre
        )
        self.centre.copy_(centre)
        self.teacher.update(info, self.encoder, self.projector)
        self.teacher_prototypes.lerp_(self.prototypes, 1 - self.teacher.momentum(info))

    @torch.no_grad()
    def signs(
        self, embeddings: BottleneckRows, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Compute collapse signs and the effective number of `prototypes` that the teacher uses."""
        used = prototypes_used(
            embeddings.teacher[:, 0],
            self.teacher_prototypes,
            self.centre,
            temperature=self.temperature(info),
        )
        return super().signs(embeddings, labels, info) | {"prototypes": used}
