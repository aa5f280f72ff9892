"""LoRA: train a product of two narrow matrices beside each linear layer of a frozen ViT.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685. Example for a layer of 192 x 192 numbers
at rank 8: 192 x 8 + 8 x 192 = 3,072 numbers are trained instead of 36,864.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfsup.core.errors import require
from selfsup.core.seeds import generator
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.layers import BATCH_NORM, head_names, keep_in_evaluation_mode

ALPHA = 8
"""The product is scaled by ALPHA / rank, so that another rank needs no other rate (section 4.1)."""


class LoRALinear(nn.Module):
    """A frozen linear layer W and what is learnt beside it: W x + ALPHA / rank x B A x."""

    def __init__(self, linear: nn.Linear, rank: int, draws: torch.Generator) -> None:
        """Draw A as torch draws linear layers; B is 0, so that the output is as before.

        Args:
            linear: frozen here.
            rank: rows of A.
            draws: on the CPU.
        """
        super().__init__()
        self.linear = linear.requires_grad_(False)
        a = torch.empty(rank, linear.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=draws)
        self.a = nn.Parameter(a.to(linear.weight))
        self.b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        self.scale = ALPHA / rank

    @property
    def weight(self) -> Tensor:
        """W + ALPHA / rank x B A: some attention of timm multiplies by it without a call."""
        return self.linear.weight + self.scale * (self.b @ self.a)

    @property
    def bias(self) -> Tensor | None:
        """The bias of the frozen layer."""
        return self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer. [..., in] -> [..., out]."""
        narrow = self.scale * F.linear(x, self.a)  # [..., rank]
        out: Tensor = self.linear(x)
        return out.add_(F.linear(narrow, self.b))  # in place: a third copy of `out` would be large

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the linear layer that computes the same."""
        self.linear.weight.copy_(self.weight)
        return self.linear


def add_lora(encoder: Encoder, rank: int, *, name: str, seed: int) -> None:
    """Freeze an encoder but its embedding head, and add LoRA to its blocks, in place.

    Linear layers of attention and of MLPs get it, where they are not frozen already.

    Args:
        encoder: a ViT.
        rank: of the products.
        name: of its timm model, for the messages.
        seed: of the run; encoders of one architecture get the same numbers.

    Raises:
        UserError: it has no attention, or is narrower than the rank.
    """
    linears = {
        n: m
        for n, m in encoder.model.named_modules()
        if isinstance(m, nn.Linear) and {"attn", "mlp"} & set(n.split("."))
    }
    attends = any("attn" in n.split(".") for n in linears)
    require(attends, f"--lora {rank} is for ViTs; {name} has no attention. Use --freeze N")
    narrowest = min(min(m.in_features, m.out_features) for m in linears.values())
    require(
        0 < rank <= narrowest,
        f"--lora {rank}: the narrowest layer of {name} has width {narrowest}; 4 to 16 is usual",
    )
    draws = generator(seed, 0, "lora")
    trained = {n: m for n, m in linears.items() if m.weight.requires_grad}
    head = head_names(encoder)
    for n, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(n in head)
    keep_in_evaluation_mode(*(m for m in encoder.model.modules() if isinstance(m, BATCH_NORM)))
    for n, linear in trained.items():
        parent, _, child = n.rpartition(".")
        setattr(encoder.model.get_submodule(parent), child, LoRALinear(linear, rank, draws))


def without_lora(encoder: Encoder) -> Encoder:
    """Return the encoder with LoRA merged into its weights: a copy, or itself where there is none.

    timm loads the merged one.
    """
    if not any(isinstance(module, LoRALinear) for module in encoder.modules()):
        return encoder
    encoder = copy.deepcopy(encoder)
    for n, module in list(encoder.model.named_modules()):
        if isinstance(module, LoRALinear):
            parent, _, child = n.rpartition(".")
            setattr(encoder.model.get_submodule(parent), child, module.merged())
    return encoder
