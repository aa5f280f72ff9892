"""The layers of an encoder from its input to its output, and how to freeze the first of them.

timm groups the parameters of its models. Of a ViT with 12 blocks and a head these are:

    layer 0    patch embedding, position embedding, class token: the stem
    layer 1    blocks.0, and so on
    layer 12   blocks.11, and the norm behind it
    layer 13   the head
"""

from typing import Any, Literal

from timm.models import group_parameters
from torch import nn

from selfsup.core.errors import UserError, require
from selfsup.encoders.encoder import Encoder

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def layer_numbers(encoder: Encoder, name: str) -> dict[str, int]:
    """Return the layer of each parameter of the timm model, from its input: {"conv1.weight": 0}.

    Args:
        encoder: any.
        name: of its timm model, for the message.

    Raises:
        UserError: the model has no groups of layers.
    """
    model = encoder.model
    if not hasattr(model, "group_matcher"):
        raise UserError(
            f"timm has no groups of layers for {name}; --optim.layer-decay and --freeze N need "
            "them, --freeze all does not"
        )
    numbers: dict[str, int] = group_parameters(
        model, model.group_matcher(coarse=False), reverse=True
    )
    return numbers


def head_names(encoder: Encoder) -> set[str]:
    """Return the names of the parameters of the embedding head in the timm model."""
    if not encoder.model.num_classes:
        return set()
    head = {id(p) for p in encoder.model.get_classifier().parameters()}
    return {name for name, p in encoder.model.named_parameters() if id(p) in head}


def freeze(encoder: Encoder, blocks: int | Literal["all"], name: str) -> None:
    """Freeze the first `blocks` layers, or all but the embedding head, in place.

    Their parameters get no gradient. Their modules stay in evaluation mode, so that batch norms use
    and keep their running statistics, and nothing is dropped.

    Args:
        encoder: any.
        blocks: number of layers from the input; the stem is the first.
        name: of its timm model, for the message.

    Raises:
        UserError: there are not so many layers.
    """
    head = head_names(encoder)
    if blocks == "all":
        frozen = {n for n, _ in encoder.model.named_parameters()} - head
    else:
        numbers = {n: i for n, i in layer_numbers(encoder, name).items() if n not in head}
        count = max(numbers.values()) + 1
        require(
            0 < blocks <= count,
            f"--freeze {blocks}: {name} has {count} blocks, its stem included. Give a number "
            f"from 1 to {count}, or all",
        )
        frozen = {n for n, i in numbers.items() if i < blocks}
    for n, parameter in encoder.model.named_parameters():
        if n in frozen:
            parameter.requires_grad_(False)
    for module in encoder.model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            keep_in_evaluation_mode(*module.modules())


def keep_in_evaluation_mode(*modules: nn.Module) -> None:
    """Keep modules in evaluation mode, in place, also after calls of `train()`."""
    for module in modules:
        if _evaluate not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_evaluate)
        module.training = False


def _evaluate(module: nn.Module, inputs: Any) -> None:
    """Put a module into evaluation mode before it computes anything."""
    module.training = False
