"""Optimisers: what moves, what decays, and the learning rate of a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from selfsup.config import OptimConfig


def optimizer(
    model: nn.Module,
    config: OptimConfig,
    *,
    apart: Sequence[nn.Parameter] = (),
    factor: float = 1.0,
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters; biases and norms (one dimension) do not decay.

    Parameters `apart` (proxies, of which only the direction counts) do not decay either and have
    `factor` times the learning rate.
    """
    others = {id(p) for p in apart}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in others]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        {"params": list(apart), "weight_decay": 0.0, "factor": factor},
    ]
    groups = [{"factor": 1.0} | group for group in groups if group["params"]]
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0)


def peak_lr(config: OptimConfig, batch: int) -> float:
    """The linear rule (Goyal et al. 2017): twice the batch, twice the learning rate."""
    return config.lr * batch / 256


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate, in place: `lr` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
