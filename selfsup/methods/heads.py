"""Projectors and predictors: small networks between an encoder and a loss, dropped later."""

from itertools import pairwise
from typing import Literal

from torch import nn

from selfsup.config.pretraining import Norm
from selfsup.core.errors import require


def mlp(
    *widths: int,
    norm: Norm | None,
    end: Literal["linear", "unbiased", "norm", "scaleless"] = "linear",
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Stack linear layers with a norm and an activation between them.

    Args:
        widths: of the input, the hidden layers and the output.
        norm: after each hidden layer; None: none anywhere. A layer before a norm has no bias.
        end: the last layer: linear with a bias, without one, or followed by a norm with or without
            a learnt scale.
        activation: between layers.

    Raises:
        UserError: a width is below 1.
    """
    require(min(widths) > 0, f"--method.hidden and --method.dim must be above 0: {widths[1:]}")
    layers: list[nn.Module] = []
    for i, (width, out) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normed = norm is not None and (not last or end in ("norm", "scaleless"))
        biased = not normed and not (last and end == "unbiased")
        layers.append(nn.Linear(width, out, bias=biased))
        if normed:
            assert norm is not None
            layers.append(_norm(norm, out, scaled=not last or end == "norm"))
        if not last:
            layers.append(activation())
    return nn.Sequential(*layers)


def _norm(norm: Norm, width: int, *, scaled: bool) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm1d(width, affine=scaled)
    return nn.LayerNorm(width, elementwise_affine=scaled)
