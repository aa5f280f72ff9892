"""Adapt weights that exist: freeze layers, train LoRA, lower rates towards the input.

Checkpointing of activations and compiling are here too: they change networks before the first step.
"""

from collections.abc import Iterator
from typing import TypeVar

from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from selfsup.config import OptimConfig, TrainConfig
from selfsup.core.errors import UserError, require
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.layers import freeze, head_names, layer_numbers
from selfsup.encoders.lora import add_lora
from selfsup.methods.method import Method
from selfsup.methods.teacher import Teacher
from selfsup.training.optim import check_settings

N = TypeVar("N", bound=nn.Module)


def synchronized(network: N) -> N:
    """Replace batch norms by ones whose statistics are those of all processes, in place.

    By timm's conversion: torch's own drops the activations that are part of timm's norms, 33 in an
    efficientnet_b0.
    """
    converted: N = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def adapt(method: Method, config: TrainConfig) -> None:
    """Freeze, add LoRA, checkpoint activations and compile heads as the settings say, in place.

    A teacher that averages the encoder's weights is changed with it.

    Raises:
        UserError: a setting does not fit the encoder, or leaves nothing to train.
    """
    name = config.encoder.name
    require(config.lora >= 0, f"--lora must be 0 or more, not {config.lora}")
    require(
        not (config.lora and config.freeze == "all"),
        f"--lora {config.lora} trains layers that --freeze all freezes. Leave one of them out",
    )
    teachers = [module for module in method.modules() if isinstance(module, Teacher)]
    copies = [e for teacher in teachers for e in teacher.modules() if isinstance(e, Encoder)]
    for teacher in teachers:
        teacher.requires_grad_(True)  # what is frozen already is left out below
    for encoder in (method.encoder, *copies):
        if config.freeze:
            freeze(encoder, config.freeze, name)
        if config.lora:
            add_lora(encoder, config.lora, name=name, seed=config.seed)
    for teacher in teachers:
        teacher.requires_grad_(False)
    require(
        any(p.requires_grad for p in method.parameters()),
        f"--freeze {config.freeze} leaves nothing to train: the encoder has no embedding head. "
        "Freeze fewer blocks, or give it a head with --method.dim",
    )
    if config.encoder.compile:
        for head in heads(method):
            head.compile()
    if config.checkpoint_activations:
        _checkpoint_activations(method.encoder, name)


def heads(network: nn.Module) -> Iterator[nn.Module]:
    """Yield what a method has beside its encoders: projectors, predictors, decoders, a teacher's.

    An encoder with `compile` is compiled where it is made.
    """
    for child in network.children():
        inner = list(child.modules())[1:]
        if isinstance(child, nn.ModuleList) or any(isinstance(m, Encoder) for m in inner):
            yield from heads(child)
        elif not isinstance(child, Encoder) and any(True for _ in child.parameters()):
            yield child


def _checkpoint_activations(encoder: Encoder, name: str) -> None:
    """Let blocks keep their inputs alone and compute the rest again in the backward pass."""
    try:
        encoder.model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError):
        raise UserError(
            f"timm has no activation checkpointing for {name}. Leave --checkpoint-activations out "
            "and save memory with --micro-batch"
        ) from None


def frozen(method: Method) -> str:
    """Describe in a line of the plan how much of the encoder is frozen; empty if nothing is."""
    fixed = [p.numel() for p in method.encoder.parameters() if not p.requires_grad]
    return f"  frozen     {len(fixed)} tensors, {sum(fixed):,} numbers" if fixed else ""


def rate_factors(method: Method, config: OptimConfig, name: str) -> dict[int, float]:
    """Return the rate of each parameter as a multiple of the run's, by `id`.

    Layer i of n layers has layer_decay^(n - 1 - i), the new ones behind them have head_factor.
    Example for layer_decay 0.5 and three layers: 0.25, 0.5, 1.

    Source: Clark et al. 2020, https://arxiv.org/abs/2003.10555, table 8; for ViTs as in BEiT, Bao
    et al. 2021, https://arxiv.org/abs/2106.08254. Groups and factors are those of timm's
    `param_groups_layer_decay`.

    Args:
        method: with the encoder.
        config: has both settings.
        name: of the encoder's timm model, for the message.

    Raises:
        UserError: a setting makes no sense, or timm has no groups of layers for this model.
    """
    check_settings(config)
    decay, factor = config.layer_decay or 1.0, config.head_factor
    factors = {id(p): factor for p in method.parameters()}
    layers = layer_numbers(method.encoder, name) if decay != 1 else {}
    last = max(layers.values(), default=0)
    new = head_names(method.encoder) if method.encoder.head_is_new else set()
    for n, p in method.encoder.model.named_parameters():
        factors[id(p)] = factor if n in new else decay ** (last - layers.get(n, last))
    return factors
