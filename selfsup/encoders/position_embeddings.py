"""Position embeddings of a checkpoint, fitted to a network of another grid or other prefix tokens.

A vision transformer adds a position to each patch of its grid, and in some projects to the class
token and other prefix tokens, too. Example: a file with a class token and 14 x 14 patches has 197
positions; a network without a position for its class token and with 8 x 8 patches has 64. The
file's first position is added to the class token, the other 196 are resampled to 64.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor

from selfsup.core.errors import require

NamedTensors = dict[str, Tensor]
BIAS_TABLE = "relative_position_bias_table"


PATCHES = "patch_embed.proj.weight"


def fit_patches(named: NamedTensors, state: NamedTensors) -> NamedTensors:
    """Resample a file's patch embedding to a network whose patches are larger or smaller.

    Source: FlexiViT (Beyer et al. 2023, https://arxiv.org/abs/2212.08013), section 3.4.
    """
    theirs, ours = named.get(PATCHES), state.get(PATCHES)
    if theirs is None or ours is None or theirs.ndim != 4 or theirs.shape[:2] != ours.shape[:2]:
        return named
    if theirs.shape == ours.shape:
        return named
    return {**named, PATCHES: resample_patch_embed(theirs, list(ours.shape[2:]))}


def fit_positions(named: NamedTensors, model: Any, file: Path) -> NamedTensors:
    """Fit position embeddings and tables of relative positions to a timm model.

    Args:
        named: the checkpoint's tensors by timm's names.
        model: the timm model.
        file: the checkpoint, for the error message.

    Raises:
        UserError: the numbers of register tokens differ, or the positions form no square grid.
    """
    state = model.state_dict()
    _require_same_registers(named, state, file)
    fitted = dict(named)
    for key, value in named.items():
        if key.endswith(BIAS_TABLE) and key in state and state[key].shape != value.shape:
            window = model.get_submodule(key.removesuffix(f".{BIAS_TABLE}")).window_size
            with warnings.catch_warnings():  # timm's interpolation searches a transposed tensor
                warnings.simplefilter("ignore", UserWarning)
                fitted[key] = resize_rel_pos_bias_table(value, window, state[key].shape)
    position = named.get("pos_embed")
    if position is None or "pos_embed" not in state or position.shape == state["pos_embed"].shape:
        return fitted
    if position.ndim == 4 and state["pos_embed"].ndim == 4:
        size = state["pos_embed"].shape[1:3]
        return {**fitted, "pos_embed": resample_abs_pos_embed_nhwc(position, list(size))}
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if position.ndim != 3 or grid is None or position.shape[2] != state["pos_embed"].shape[2]:
        return fitted
    return _with_prefix_tokens(fitted, state, _fit_grid(position, model, grid, file))


def _require_same_registers(named: NamedTensors, state: NamedTensors, file: Path) -> None:
    """Raise a UserError if the file and the model have other numbers of register tokens."""
    theirs, ours = (
        int(tensors["reg_token"].shape[1]) if "reg_token" in tensors else 0
        for tensors in (named, state)
    )
    require(
        theirs == ours,
        f"{file} has {theirs} register tokens and the model {ours}: name a model with {theirs}, "
        "or give --encoder-args '{reg_tokens: " + f"{theirs}" + "}'",
    )


def _fit_grid(
    position: Tensor, model: Any, grid: tuple[int, int], file: Path
) -> tuple[Tensor, Tensor]:
    """Positions of the file's prefix tokens and of the model's grid. [1, p, d] and [1, g, d].

    Raises:
        UserError: the file's positions are neither the model's grid nor a square one.
    """
    prefix = int(getattr(model, "num_prefix_tokens", 1))
    usual = 0 if getattr(model, "no_embed_class", False) else prefix
    total, wanted = int(position.shape[1]), grid[0] * grid[1]
    for tokens in (usual, 1, 0, prefix, 2):
        if total - tokens == wanted:
            return position[:, :tokens], position[:, tokens:]
    # without a position for the class token 5 x 5 patches are 25, and so are 8 x 3 with one: only
    # the number of tokens that is usual, or one more than none, is taken for granted
    tokens = usual if usual or math.isqrt(total) ** 2 == total else 1
    patches = total - tokens
    require(
        patches > 0 and math.isqrt(patches) ** 2 == patches,
        f"{file} has positions of {total} tokens, and the model of {grid[0]} x {grid[1]} patches "
        f"and {usual} more: the file's image was not square, so its positions cannot be resampled",
    )
    fitted = resample_abs_pos_embed(position[:, tokens:], list(grid), num_prefix_tokens=0)
    return position[:, :tokens], fitted


def _with_prefix_tokens(
    named: NamedTensors, state: NamedTensors, positions: tuple[Tensor, Tensor]
) -> NamedTensors:
    """Move positions of prefix tokens to where the model has them: with positions, or in tokens.

    A token and its position are only ever used as their sum.
    """
    prefix, patches = positions
    wanted = int(state["pos_embed"].shape[1] - patches.shape[1])
    if wanted == prefix.shape[1]:
        return {**named, "pos_embed": torch.cat([prefix, patches], dim=1)}
    named = dict(named)
    first = 0
    for key in ("cls_token", "dist_token", "reg_token"):
        if key in named and first < prefix.shape[1]:
            count = named[key].shape[1]
            named[key] = named[key] + prefix[:, first : first + count]
            first += count
    blank = prefix.new_zeros(1, wanted, prefix.shape[2])
    return {**named, "pos_embed": torch.cat([blank, patches], dim=1)}
