"""Teachers: what they follow, what they keep, and which encoder is kept."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import selfsupervised as oracle
from small import HALF, encoder, normal
from torch import nn

from selfsup.config import (
    BYOLConfig,
    DINOConfig,
    DINOv2Config,
    EncoderConfig,
    MoCoV2Config,
    MoCoV3Config,
    TeacherConfig,
    TiCoConfig,
)
from selfsup.core.seeds import StepInfo
from selfsup.doctor.cases import VIT
from selfsup.encoders.encoder import build
from selfsup.methods.byol import BYOL
from selfsup.methods.dino import DINO
from selfsup.methods.dinov2 import DINOv2
from selfsup.methods.moco import MoCoV2, MoCoV3
from selfsup.methods.teacher import Teacher
from selfsup.methods.tico import TiCo

TAUGHT: dict[str, Callable[[TeacherConfig], Any]] = {
    "byol": lambda t: BYOL(encoder(), BYOLConfig(hidden=4, dim=4, teacher=t)),
    "moco v2": lambda t: MoCoV2(encoder(), MoCoV2Config(hidden=4, dim=4, teacher=t)),
    "moco v3": lambda t: MoCoV3(encoder(), MoCoV3Config(hidden=4, dim=4, teacher=t)),
    "tico": lambda t: TiCo(encoder(), TiCoConfig(hidden=4, dim=4, teacher=t)),
    "dino": lambda t: DINO(encoder(), DINOConfig(hidden=4, dim=4, prototypes=4, teacher=t)),
    "dinov2": lambda t: DINOv2(
        build(VIT, 16), DINOv2Config(hidden=4, dim=4, prototypes=4, teacher=t)
    ),
}


@pytest.mark.parametrize("name", TAUGHT)
def test_the_exported_encoder_is_the_one_that_was_asked_for(name: str) -> None:
    for export in ("student", "teacher"):
        method = TAUGHT[name](TeacherConfig(export=export))
        expected = method.encoder if export == "student" else method.teacher.network[0]
        assert method.exported is expected
    assert method.encoder is not method.teacher.network[0]


def test_only_dino_exports_its_teacher_by_default() -> None:
    others = (c.teacher for c in (BYOLConfig(), MoCoV2Config(), MoCoV3Config(), TiCoConfig()))
    assert {teacher.export for teacher in others} == {"student"}
    assert DINOConfig().teacher.export == "teacher"
    assert DINOv2Config().teacher.export == "teacher"


def test_a_teacher_follows_by_the_momentum_of_its_step() -> None:
    student = nn.Sequential(nn.Linear(3, 2)).double()
    teacher = Teacher(TeacherConfig(momentum=0.9, final=1.0), student).double()
    before = nn.utils.parameters_to_vector(teacher.parameters()).tolist()
    students, momenta = [], []
    for step in range(4):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(normal(*parameter.shape, seed=step))
        students.append(nn.utils.parameters_to_vector(student.parameters()).tolist())
        momenta.append(1 - (1 - 0.9) * (math.cos(math.pi * step / 4) + 1) / 2)  # BYOL, section 3.2
        teacher.update(StepInfo(step, 4, 0), student)
    now = nn.utils.parameters_to_vector(teacher.parameters()).tolist()
    assert now == pytest.approx(oracle.teacher_after(before, students, momenta), abs=1e-12)
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("buffers", ["own", "copied"])
def test_running_statistics_of_a_teacher_are_its_own_or_the_students(buffers: str) -> None:
    student = nn.BatchNorm1d(3)
    teacher = Teacher(TeacherConfig(buffers=buffers), student)  # type: ignore[arg-type]
    student(torch.ones(4, 3) + torch.arange(4.0)[:, None])
    teacher.update(HALF, student)
    own: Any = teacher.network[0]
    assert torch.equal(own.running_mean, student.running_mean) == (buffers == "copied")  # type: ignore[arg-type]
    teacher(torch.arange(12.0).view(4, 3))
    assert not torch.equal(own.running_mean, student.running_mean)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", ["drop_path_rate", "proj_drop_rate", "patch_drop_rate"])
def test_a_teacher_drops_nothing(rate: str) -> None:
    vit = EncoderConfig(name="test_vit", args=f"{{{rate}: 0.5}}")
    student = build(vit, 32)
    teacher = Teacher(TeacherConfig(), student).train()
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(teacher(x), teacher(x))
    assert not torch.equal(student.train()(x), student(x))


@pytest.mark.slow
def test_a_teacher_of_a_compiled_encoder_is_compiled_too() -> None:
    student = build(EncoderConfig(name="test_resnet", compile=True), 32)
    teacher = Teacher(TeacherConfig(), student)
    own: Any = teacher.network[0]
    assert student.model._compiled_call_impl is not None
    assert own.model._compiled_call_impl is not None
    plain: Any = Teacher(TeacherConfig(), build(EncoderConfig(name="test_resnet"), 32)).network[0]
    assert plain.model._compiled_call_impl is None
