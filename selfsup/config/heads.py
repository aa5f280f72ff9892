"""Settings that methods share: heads behind the encoder, and teachers."""

from dataclasses import dataclass
from typing import Any, Literal

from selfsup.errors import require

Norm = Literal["batch", "layer"]


def above_0(config: Any, *names: str) -> None:
    """Refuse settings that must be above 0.

    Raises:
        UserError: one is not; by the name of its flag.
    """
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"--method.{name.replace('_', '-')} must be above 0, not {value}")


def share(config: Any, *names: str, prefix: str = "method") -> None:
    """Refuse settings that must be from 0 to 1.

    Raises:
        UserError: one is not; by the name of its flag.
    """
    for name in names:
        value = getattr(config, name)
        flag = f"--{prefix}.{name.replace('_', '-')}"
        require(0 <= value <= 1, f"{flag} must be from 0 to 1, not {value}")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What stands between the encoder and the loss, and is thrown away after training."""

    hidden: int = 512
    """Width of hidden layers."""
    dim: int = 128
    """Width of a projection."""
    norm: Norm = "batch"
    """Between layers: batch as in the papers, or layer, whose result is the same on any number of
    processes and micro-batches."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A moving average of the student."""

    momentum: float = 0.996
    """Share of the teacher that is kept at each step, at the start."""
    final: float = 1.0
    """The same at the end of the run, reached by half a cosine."""
    buffers: Literal["own", "copied"] = "own"
    """Running batch-norm statistics of the teacher: of the images that it saw itself, as in all the
    papers here, or the student's."""
    export: Literal["student", "teacher"] = "student"
    """Which encoder is looked at on the way and kept."""
