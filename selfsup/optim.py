"""Optimisers: what moves, what decays, and the learning rate of a batch."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.config import OptimConfig
from selfsup.schedule import cosine, warmup_cosine


def optimizer(
    model: nn.Module,
    config: OptimConfig,
    *,
    apart: Sequence[nn.Parameter] = (),
    factor: float = 1.0,
) -> torch.optim.Optimizer:
    """SGD, AdamW or LARS over the trainable parameters.

    Biases and norms (one dimension) do not decay. Parameters `apart` (proxies, prototypes, of which
    only the direction counts) do not decay either and have `factor` times the learning rate.
    """
    others = {id(p) for p in apart}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in others]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "adapted": False},
        {"params": list(apart), "weight_decay": 0.0, "factor": factor},
    ]
    names = ("weights", "biases and norms", "of the loss")
    defaults = {"factor": 1.0, "adapted": True}
    groups = [
        {**defaults, **group, "name": name}
        for name, group in zip(names, groups, strict=True)
        if group["params"]
    ]
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0)
        case "lars":
            return LARS(groups, momentum=config.momentum, trust=config.trust)


class LARS(torch.optim.Optimizer):
    """SGD whose step is, for each weight tensor, a share of the tensor's own length.

    u = g + decay w, scaled by trust |w| / |u| where the group is adapted and neither length is 0;
    m = momentum m + u; w = w - lr m. The learning rate stands outside the momentum, so that a
    schedule acts at once.

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888, algorithm 1, as the code of BYOL and
    Barlow Twins has it: the paper's denominator is |g| + decay |w|, and the paper and SimCLR's code
    multiply by the rate before the momentum. Biases and norms are neither decayed nor adapted.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float, trust: float) -> None:
        """Groups carry `weight_decay` and `adapted`."""
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient, in place."""
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(self._momentum(p, group), alpha=group["lr"])

    def _momentum(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        """The parameter's momentum after this gradient."""
        assert p.grad is not None
        update = p.grad.add(p, alpha=group["weight_decay"])
        if group["adapted"]:
            length, change = p.norm(), update.norm()
            moves = (length > 0) & (change > 0)
            update *= torch.where(moves, group["trust"] * length / change, 1)
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        momentum: Tensor = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
        return momentum


def peak_lr(config: OptimConfig, batch: int) -> float:
    """The learning rate at its highest, for a global batch of `batch` images.

    linear: twice the batch, twice the rate (Goyal et al. 2017); sqrt: twice the batch, 1.4 times
    the rate (SimCLR, appendix B.1: better below a batch of 2,048).
    """
    match config.rule:
        case "linear":
            return config.lr * batch / 256
        case "sqrt":
            return config.lr * math.sqrt(batch / 256)
        case "none":
            return config.lr


def schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, *, batch: int, step: int, total: int
) -> float:
    """Set every group's learning rate and decay for a step, in place; the encoder's rate."""
    warmup = round(config.warmup * total)
    lr = warmup_cosine(step, total, warmup=warmup, peak=peak_lr(config, batch))
    end = config.weight_decay if config.final_decay is None else config.final_decay
    decay = cosine(step, total, start=config.weight_decay, end=end)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
        if group["name"] == "weights":
            group["weight_decay"] = decay
    return lr


def plan(
    optimizer: torch.optim.Optimizer, config: OptimConfig, *, batch: int, total: int, against: int
) -> str:
    """What an optimiser is about to do, in plain text, at most 80 columns wide."""
    rules = {
        "linear": f" = {config.lr:g} x {batch}/256",
        "sqrt": f" = {config.lr:g} x sqrt({batch}/256)",
        "none": "",
    }
    rate = f"{peak_lr(config, batch):.3g}{rules[config.rule]}"
    warmup = round(config.warmup * total)
    negatives = f"{against:,} negatives for each embedding" if against else "no negatives"
    rows = [
        f"  batch      {batch} images, {negatives}",
        f"  rate       {rate}, after {warmup} of {total} steps, then a cosine to 0",
    ]
    for group in optimizer.param_groups:
        count = sum(p.numel() for p in group["params"])
        decay = f"decay {group['weight_decay']:g}" if group["weight_decay"] else "no decay"
        if group["weight_decay"] and config.final_decay is not None:
            decay += f" to {config.final_decay:g}"
        if config.name == "lars" and not group["adapted"]:
            decay += ", not adapted"
        if group["factor"] != 1:
            decay += f", rate x {group['factor']:g}"
        told = f"{len(group['params'])} tensors, {count:,} numbers, {decay}"
        rows.append(f"  {config.name:<11}{group['name']}: {told}")
    return "\n".join(row[:80] for row in rows)
