"""Optimisers: what moves, what decays, and the learning rate of a batch."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.config import OptimConfig
from selfsup.core.errors import require
from selfsup.core.schedule import cosine, warmup_cosine

ORDER = (
    *("weights", "biases and norms", "constant-rate weights", "constant-rate biases and norms"),
    "loss parameters",
)
"""Names of groups of parameters, in the order in which an optimiser has them."""


def optimizer(
    model: nn.Module,
    config: OptimConfig,
    *,
    loss_parameters: Sequence[nn.Parameter] = (),
    factor: float = 1.0,
    decays: bool = False,
    constant_lr: Sequence[nn.Parameter] = (),
    rates: Mapping[int, float] | None = None,
    settled: Collection[int] = (),
) -> torch.optim.Optimizer:
    """Make SGD, AdamW or LARS over the trainable parameters.

    Biases and norms (one dimension) do not decay.

    Args:
        model: what is trained.
        config: the settings.
        loss_parameters: parameters of the loss (proxies, prototypes), with a rate of their own.
        factor: their rate as a multiple of the others'.
        decays: whether they decay.
        constant_lr: parameters that keep the highest rate, whatever the schedule says.
        rates: rate of a parameter of the network as a multiple of the run's, by its `id`; 1 for
            those that are not in it.
        settled: `id` of each parameter that waits for --optim.settle.

    Raises:
        UserError: a setting makes no sense.
    """
    check_settings(config)
    owners = {id(p): "loss parameters" for p in loss_parameters} | {
        id(p): "constant-rate" for p in constant_lr
    }
    by_name: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            name = _name(p, owners.get(id(p)))
            rate = factor if name == "loss parameters" else (rates or {}).get(id(p), 1.0)
            late = bool(config.settle) and id(p) in settled
            by_name.setdefault((name, rate, late), []).append(p)
    groups: list[dict[str, Any]] = []
    for key in sorted(by_name, key=lambda group: (ORDER.index(group[0]), *group[1:])):
        name, rate, late = key
        decaying = decays if name == "loss parameters" else name.endswith("weights")
        group = {"params": by_name[key], "name": name, "factor": rate, "decays": decaying}
        group["late"] = late
        group["weight_decay"] = config.weight_decay if decaying else 0.0
        groups.append(group | {"adapted": not name.endswith("norms")})
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0)
        case "lars":
            return LARS(groups, momentum=config.momentum, trust=config.trust)


def _name(parameter: nn.Parameter, owner: str | None) -> str:
    """Return the name of a parameter's group, one of `ORDER`."""
    kind = "weights" if parameter.ndim > 1 else "biases and norms"
    match owner:
        case None:
            return kind
        case "constant-rate":
            return f"constant-rate {kind}"
        case _:
            return owner


def check_settings(config: OptimConfig) -> None:
    """Refuse settings of an optimiser that make no sense.

    Raises:
        UserError: one does not.
    """
    require(0 < config.lr < math.inf, f"--optim.lr must be above 0, not {config.lr}")
    require(
        0 <= config.warmup < 1,
        f"--optim.warmup is a fraction of the run below 1, not {config.warmup}",
    )
    require(0 <= config.momentum < 1, f"--optim.momentum must be below 1, not {config.momentum}")
    require(
        config.settle is None or 0 <= config.settle < 1,
        f"--optim.settle must be from 0 to below 1, not {config.settle}",
    )
    require(
        config.layer_decay is None or 0 < config.layer_decay <= 1,
        f"--optim.layer-decay must be above 0 and at most 1, not {config.layer_decay}",
    )
    for name in ("trust", "head_factor", "clip", "clip_each"):
        value = getattr(config, name)
        flag = f"--optim.{name.replace('_', '-')}"
        require(value is None or value > 0, f"{flag} must be above 0, not {value}")


def clipping(config: OptimConfig) -> Callable[[Sequence[nn.Parameter]], None] | None:
    """Return a function that clips gradients in place, or None where the settings clip nothing."""
    if config.clip is None and config.clip_each is None:
        return None

    def clip(parameters: Sequence[nn.Parameter]) -> None:
        if config.clip_each is not None:
            clip_each(parameters, config.clip_each)
        if config.clip is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip)

    return clip


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], longest: float) -> None:
    """Shorten each tensor's gradient to that length if it is longer, in place."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        lengths = torch.stack(torch._foreach_norm(gradients))
        factors = (longest / lengths).clamp(max=1.0)  # a length of 0 gives inf, and so 1
        torch._foreach_mul_(gradients, factors.unbind())


class LARS(torch.optim.Optimizer):
    """SGD whose step is, for each weight tensor, a fraction of the tensor's length.

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
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                momenta = self._momenta(parameters, group)
                torch._foreach_add_(parameters, momenta, alpha=-group["lr"])

    def _momenta(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Update the momenta of parameters with their gradients, in place, and return them."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        if group["adapted"]:
            lengths = torch.stack(torch._foreach_norm(parameters))
            changes = torch.stack(torch._foreach_norm(updates))
            moves = (lengths > 0) & (changes > 0)
            factors = torch.where(moves, group["trust"] * lengths / changes, 1)
            torch._foreach_mul_(updates, factors.unbind())
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        return momenta


def rule_of(config: OptimConfig) -> str:
    """Return how the rate scales with the batch: "linear", "sqrt" or "none".

    By default linearly for SGD. AdamW divides by the gradient's own size, and the noise of that
    size falls with the square root of the batch (Malladi et al. 2022,
    https://arxiv.org/abs/2205.10287); LARS likewise follows SimCLR's square root.
    """
    if config.rule != "auto":
        return config.rule
    return "linear" if config.name == "sgd" else "sqrt"


def peak_lr(config: OptimConfig, batch: int) -> float:
    """Return the peak learning rate for a global batch of `batch` images.

    linear: twice the batch, twice the rate (Goyal et al. 2017); sqrt: twice the batch, 1.4 times
    the rate (SimCLR, appendix B.1: better below a batch of 2,048).
    """
    match rule_of(config):
        case "linear":
            return config.lr * batch / 256
        case "sqrt":
            return config.lr * math.sqrt(batch / 256)
        case _:
            return config.lr


def schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, *, batch: int, step: int, total: int
) -> float:
    """Set every group's learning rate and decay for a step, in place; return the encoder's rate."""
    warmup = round(config.warmup * total)
    peak = peak_lr(config, batch)
    lr = warmup_cosine(step, total, warmup=warmup, peak=peak)
    end = config.weight_decay if config.final_decay is None else config.final_decay
    decay = cosine(step, total, start=config.weight_decay, end=end)
    settle = settling_steps(config, total)
    awake = min(1.0, max(0, step + 1 - settle) / settle) if settle else 1.0
    for group in optimizer.param_groups:
        rate = (peak if group["name"].startswith("constant-rate") else lr) * group["factor"]
        group["lr"] = rate * awake if group["late"] else rate
        if group["decays"]:
            group["weight_decay"] = decay
    return lr


def settling_steps(config: OptimConfig, total: int) -> int:
    """Return for how many steps of the run the encoder of --init stays as it is."""
    return round((config.settle or 0.0) * total)


def plan(
    optimizer: torch.optim.Optimizer,
    config: OptimConfig,
    *,
    batch: int,
    total: int,
    negatives: int | None,
) -> str:
    """Describe an optimiser's groups and schedule in plain text, at most 80 columns wide."""
    rules = {
        "linear": f" = {config.lr:g} x {batch}/256",
        "sqrt": f" = {config.lr:g} x sqrt({batch}/256)",
        "none": "",
    }
    rate = f"{peak_lr(config, batch):.3g}{rules[rule_of(config)]}"
    warmup = round(config.warmup * total)
    against = f", {negatives:,} negatives for each embedding" if negatives else ", no negatives"
    course = f"  rate       {rate}, after {warmup} of {total} steps, then a cosine to 0"
    rows = [
        f"  batch      {batch} images{'' if negatives is None else against}",
        *wrap(course, 79, subsequent_indent=" " * 13),
    ]
    for name in ORDER:
        groups = [group for group in optimizer.param_groups if group["name"] == name]
        if groups:
            rows.append(f"  {config.name:<11}{_describe(groups, config)}")
    if settle := settling_steps(config, total):
        rows.append(f"  encoder    stays as it is for {settle} steps, while new layers learn")
    falls_off = config.layer_decay not in (None, 1)
    if falls_off or config.head_factor != 1:
        network = [g for g in optimizer.param_groups if g["name"] != "loss parameters"]
        lowest = min(group["factor"] for group in network)
        falls = f"x {lowest:.2g} at the input to " if falls_off else ""
        new = f", x {config.head_factor:g} in new layers" if config.head_factor != 1 else ""
        rows.append(f"  layers     rate {falls}x 1 at the output{new}")
    return "\n".join(row[:80] for row in rows)


def _describe(groups: Sequence[Mapping[str, Any]], config: OptimConfig) -> str:
    """Describe groups of one name, which differ in their rates alone."""
    parameters = [p for group in groups for p in group["params"]]
    count = sum(p.numel() for p in parameters)
    decay = groups[0]["weight_decay"]
    words = f"decay {decay:g}" if decay else "no decay"
    if decay and config.final_decay is not None:
        words += f" to {config.final_decay:g}"
    if config.name == "lars" and not groups[0]["adapted"]:
        words += ", not adapted"
    if groups[0]["name"] == "loss parameters" and groups[0]["factor"] != 1:
        words += f", rate x {groups[0]['factor']:g}"
    return f"{groups[0]['name']}: {len(parameters)} tensors, {count:,} numbers, {words}"
