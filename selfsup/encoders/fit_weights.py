"""Fit the tensors of a checkpoint to a timm model, and load them with what tensors do not say."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from selfsup.config import Format
from selfsup.core.errors import UserError, require
from selfsup.encoders.position_embeddings import fit_patches, fit_positions
from selfsup.encoders.third_party import MovingAverage, NamedTensors, translate
from selfsup.encoders.third_party_names import BUFFERS, LAST_NORMS
from selfsup.encoders.weights import (
    first_names,
    is_of_encoder,
    require_finite,
    require_same_network,
)

LEAST_MATCHED = 0.9
"""Fraction of a network's tensors that a file must have, unless told otherwise."""


class Match(NamedTuple):
    """How many tensors of a checkpoint match a network."""

    matched: int
    """Number of the network's tensors that were loaded."""
    missing: list[str]
    """Names of the network's tensors that the checkpoint does not have in the same shape."""
    unused: list[str]
    """Names of the checkpoint's encoder tensors that the network does not have."""
    moving_average: bool = False
    """Whether they are a moving average's because the file has no other network."""

    def __str__(self) -> str:
        """A cell of a table: "75 of 100 tensors; not layer4.0.conv1.weight, ..."."""
        text = f"{self.matched} of {self.matched + len(self.missing)} tensors"
        if self.missing:
            text += f"; not {first_names(self.missing)}"
        if self.unused:
            text += f"; {len(self.unused)} of the file's unused: {first_names(self.unused)}"
        return text + "; the moving average, the file's only network" * self.moving_average


class Fit(NamedTuple):
    """How the tensors of a checkpoint fit a network."""

    matching: NamedTensors
    """The tensors that the network takes, by its names."""
    match: Match
    other_shapes: dict[str, list[int]]
    """Shapes in the checkpoint of the encoder's tensors that both have, in different shapes."""
    names: list[str]
    """Names in the checkpoint."""
    settings: str
    """What tensors do not contain and the project has otherwise than timm: see `SETTINGS`."""

    @property
    def fraction(self) -> float:
        """The fraction of the network's tensors that are in the checkpoint."""
        return self.match.matched / max(1, self.match.matched + len(self.match.missing))


def fit_tensors(
    model: nn.Module,
    named: NamedTensors,
    file: Path,
    format: Format,
    *,
    other_patches: bool = False,
) -> Fit:
    """Find out how tensors of another project fit a timm model, which stays as it is.

    Position embeddings of another image size are resampled.

    Args:
        model: the timm model.
        named: tensors from `select_tensors`.
        file: the checkpoint, for the error message.
        format: the project that wrote it.
        other_patches: also resample a patch embedding of another patch size.

    Raises:
        UserError: the numbers of register tokens differ, or positions cannot be resampled.
    """
    moving_average, names = isinstance(named, MovingAverage), list(named)
    named = translate(named, model, format)
    state = model.state_dict()
    named = _rename_last_norm(named, state)
    named = fit_positions(fit_patches(named, state) if other_patches else named, model, file)
    matching = {k: v for k, v in named.items() if k in state and state[k].shape == v.shape}
    missing = [key for key in state if key not in matching and not BUFFERS.search(key)]
    unused = [key for key in named if key not in matching and is_of_encoder(key)]
    matched = sum(not BUFFERS.search(key) for key in matching)
    match = Match(matched, missing, unused, moving_average)
    shapes = {key: list(named[key].shape) for key in unused if key in state}
    return Fit(matching, match, shapes, names, _project_settings(model, format, named))


def load_fitting(
    model: nn.Module, fit: Fit, file: Path, format: Format, *, partial: bool = False
) -> Match:
    """Load the tensors of a checkpoint that fit a timm model, in place.

    Settings that tensors do not contain (numbers of heads, paddings, activations) are changed to
    the project's.

    Args:
        model: the timm model.
        fit: from `fit_tensors`.
        file: the checkpoint, for the error message.
        format: the project that wrote it.
        partial: accept a checkpoint with less than `LEAST_MATCHED` of the model's tensors.

    Raises:
        UserError: no tensor matches, one has another shape, too few of the model's are there, or
            too many of the checkpoint's encoder tensors have no place in the model.
    """
    names = f"{len(fit.names)} tensors such as {', '.join(fit.names[:3])}"
    check = f"Check --format {format} and the model's name"
    require(bool(fit.matching), f"no tensor of {file} fits the model; it has {names}. {check}")
    for key, shape in fit.other_shapes.items():
        stem = key.startswith(("conv1.", "stem.", "patch_embed."))
        hint = " or --encoder.stem standard or small" * stem
        raise UserError(
            f"{file} is of another network: its {key} has shape {shape}, the model's "
            f"{list(model.state_dict()[key].shape)}. Check the model's name and the size{hint}"
        )
    require_same_network(fit.match.unused, fit.match.matched, f"{file} is of another network")
    require(
        partial or fit.fraction >= LEAST_MATCHED,
        f"{file} has only {fit.match}. Name the model that it was trained as, or start so with "
        "--partial",
    )
    model.load_state_dict(fit.matching, strict=False)
    require_finite(model, file)
    if fit.settings:
        SETTINGS[fit.settings](model)
    return fit.match


def _rename_last_norm(named: NamedTensors, state: NamedTensors) -> NamedTensors:
    """Rename the norm after pooling to `head.norm.`, where the network has that one alone."""
    if "head.norm.weight" not in state or "head.norm.weight" in named:
        return named
    for prefix in LAST_NORMS:
        if f"{prefix}weight" in named and f"{prefix}weight" not in state:
            return {
                f"head.norm.{k[len(prefix) :]}" if k.startswith(prefix) else k: v
                for k, v in named.items()
            }
    return named


def _project_settings(model: Any, format: Format, named: NamedTensors) -> str:
    """Name what the project has otherwise than timm and tensors do not contain: a key, or empty."""
    stem = named.get("conv1.weight")
    small = stem is not None and stem.shape[-1] == 3
    if format in ("solo", "lightly") and small:
        return format
    return "moco" if format == "moco" and getattr(model, "embed_dim", 0) == 384 else ""


def _as_solo(model: Any) -> None:
    model.conv1.padding = (2, 2)  # solo-learn's stem for CIFAR


def _as_lightly(model: Any) -> None:
    # lightly takes the children of its ResNet, whose ReLU after the stem is in its forward
    model.act1 = nn.Identity()


def _as_moco(model: Any) -> None:
    for module in model.modules():  # MoCo v3's ViT-S has twelve heads, timm's six
        if hasattr(module, "num_heads"):
            module.num_heads, module.head_dim, module.scale = 12, 32, 32**-0.5


SETTINGS = {"solo": _as_solo, "lightly": _as_lightly, "moco": _as_moco}
"""Changes to a network, in place: heads, paddings and activations as a project has them."""
