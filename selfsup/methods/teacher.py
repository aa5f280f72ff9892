"""A teacher: a moving average of the student's weights, updated once a step and never trained.

Example for one weight, at momentum 0.9, where the teacher has 0 and the student stays at 1:

    step 1   teacher = 0.9 x 0   + 0.1 x 1 = 0.1
    step 2   teacher = 0.9 x 0.1 + 0.1 x 1 = 0.19   after k steps: 1 - 0.9^k
    momentum 0.996 of 1,000 steps at its end 1.0: at step 500, half a cosine is 0.998
"""

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


def _disable_dropout(module: nn.Module) -> None:
    """Disable a layer that drops units, paths, blocks or patches, in place."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        module.p = 0.0
    if isinstance(module, DropPath | DropBlock2d):
        module.drop_prob = 0.0
    if isinstance(module, PatchDropout):
        module.prob = 0.0


class Teacher(nn.Module):
    """A copy of an encoder and its projector, without gradient and without dropout."""

    def __init__(self, config: TeacherConfig, *student: nn.Module) -> None:
        """Copy the student's modules, which run one after another.

        Raises:
            UserError: the momentum is not between 0 and 1.
        """
        super().__init__()
        require_fraction(config, "momentum", "final", prefix="method.teacher")
        self.config = config
        self.network = nn.Sequential(*map(copy.deepcopy, student)).requires_grad_(False)
        for teacher_module, student_module in zip(self.network, student, strict=True):
            pairs = zip(teacher_module.modules(), student_module.modules(), strict=True)
            for copied, original in pairs:
                _disable_dropout(copied)
                if original._compiled_call_impl is not None:
                    copied.compile()

    def exported(self, student: Encoder) -> Encoder:
        """Choose the encoder that is evaluated and kept: the student's or the teacher's."""
        encoder: Any = self.network[0]
        return encoder if self.config.export == "teacher" else student

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Project images, without gradient. [b, 3, s, s] -> [b, d]."""
        out: Tensor = self.network(images)
        return out

    def momentum(self, info: StepInfo) -> float:
        """Momentum at this step: from `momentum` to `final` by half a cosine."""
        start, end = self.config.momentum, self.config.final
        return cosine(info.step, info.total, start=start, end=end)

    @torch.no_grad()
    def update(self, info: StepInfo, *student: nn.Module) -> None:
        """Move towards the student: momentum x teacher + (1 - momentum) x student, in place."""
        modules = list(zip(self.network, student, strict=True))
        pairs = [zip(a.parameters(), b.parameters(), strict=True) for a, b in modules]
        teacher_weights, student_weights = zip(*chain(*pairs), strict=True)
        torch._foreach_lerp_(teacher_weights, student_weights, 1 - self.momentum(info))
        if self.config.buffers == "copied":
            for teacher_module, student_module in modules:
                buffers = zip(teacher_module.buffers(), student_module.buffers(), strict=True)
                for teacher_buffer, student_buffer in buffers:
                    teacher_buffer.copy_(student_buffer)
