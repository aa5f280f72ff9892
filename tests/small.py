"""The smallest encoder, and numbers for it."""

import torch
from torch import Tensor, nn

from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder

WIDTH = 4
HALF = StepInfo(5, 10, 0)
"""The middle of a run."""


class Head(nn.Module):
    """What an encoder asks of a model, with a parameter and a buffer."""

    num_classes = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)


def encoder() -> Encoder:
    return Encoder(Head(), channels_last=False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)
