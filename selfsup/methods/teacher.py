"""A teacher: a moving average of the student, which follows it once a step and is never trained."""

import copy
from itertools import chain
from typing import Any

import torch
from timm.layers.drop import DropBlock2d, DropPath
from timm.layers.patch_dropout import PatchDropout
from torch import Tensor, nn

from selfsup.config.pretraining import TeacherConfig, require_fraction
from selfsup.core.schedule import cosine
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder


def _drop_nothing(module: nn.Module) -> None:
    """Switch a layer off that drops units, paths, blocks or patches, in place."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        module.p = 0.0
    if isinstance(module, DropPath | DropBlock2d):
        module.drop_prob = 0.0
    if isinstance(module, PatchDropout):
        module.prob = 0.0


class Teacher(nn.Module):
    """A copy of an encoder and what stands behind it, without gradient and without dropout."""

    def __init__(self, config: TeacherConfig, *student: nn.Module) -> None:
        """Start as a copy of the student's modules, which run one after another.

        Raises:
            UserError: the momentum is no share.
        """
        super().__init__()
        require_fraction(config, "momentum", "final", prefix="method.teacher")
        self.config = config
        self.network = nn.Sequential(*map(copy.deepcopy, student)).requires_grad_(False)
        for own, its in zip(self.network, student, strict=True):
            for copied, original in zip(own.modules(), its.modules(), strict=True):
                _drop_nothing(copied)
                if original._compiled_call_impl is not None:
                    copied.compile()

    def chosen(self, student: Encoder) -> Encoder:
        """Which encoder is evaluated and kept: the student's or the teacher's own."""
        own: Any = self.network[0]
        return own if self.config.export == "teacher" else student

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """What it makes of images, without gradient. [b, 3, s, s] -> [b, d]."""
        out: Tensor = self.network(images)
        return out

    def momentum(self, info: StepInfo) -> float:
        """The share that is kept at this step: from `momentum` to `final` by half a cosine."""
        start, end = self.config.momentum, self.config.final
        return cosine(info.step, info.total, start=start, end=end)

    @torch.no_grad()
    def follow(self, info: StepInfo, *student: nn.Module) -> None:
        """Move towards the student: kept share x teacher + the rest x student, in place."""
        modules = list(zip(self.network, student, strict=True))
        pairs = [zip(own.parameters(), its.parameters(), strict=True) for own, its in modules]
        own, its = zip(*chain(*pairs), strict=True)
        torch._foreach_lerp_(own, its, 1 - self.momentum(info))
        if self.config.buffers == "copied":
            for mine, theirs in modules:
                for a, b in zip(mine.buffers(), theirs.buffers(), strict=True):
                    a.copy_(b)
