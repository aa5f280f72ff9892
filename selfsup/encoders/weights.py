"""Weight files: read them without running code, and load them into a network."""

import argparse
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy._core.multiarray import scalar
from torch import Tensor, nn

from selfsup.core.errors import UserError, require
from selfsup.encoders.third_party_names import BUFFERS, HEAD

WRAPPERS = ("state_dict", "model", "teacher", "student")  # entries of a file that hold the weights
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")

MOST_UNUSED = 0.05
"""Fraction of a file's encoder tensors that may stay unused: one block of twelve is more."""

SAFE_TYPES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    scalar,
    (scalar, "numpy.core.multiarray.scalar"),  # its name in files from numpy 1
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "?")),
]
"""Types besides tensors that a torch file may contain: flags and numbers, which cannot run code."""

READ_ERRORS = (
    *(safetensors.SafetensorError, RuntimeError, OSError, EOFError, ValueError),
    *(IndexError, KeyError, TypeError, AttributeError, struct.error),
)
"""Exceptions of torch's readers for a damaged file."""


def read_file(file: Path) -> Any:
    """Read a .safetensors file or a torch file; code in a pickle is never run.

    Args:
        file: its path; every suffix other than .safetensors is read as a torch file.

    Returns:
        The content: usually a dictionary, with tensors on the CPU.

    Raises:
        UserError: the file does not exist, is damaged, or contains more than tensors and
            `SAFE_TYPES`.
    """
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals(SAFE_TYPES):
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise UserError(f"{file} is not a file of weights, or it is damaged") from None
        raise UserError(
            f"{file} is a pickle with more than tensors in it{_unsafe_names(file)}. It was not "
            "opened, because that can run code. Save only the state_dict, best as .safetensors"
        ) from None
    except READ_ERRORS as error:
        first = str(error).split("\n")[0]
        raise UserError(f"{file} is not a file of weights: {first}") from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the named tensors of a file, also from below a "state_dict" or another wrapper.

    Args:
        file: see `read_file`.

    Returns:
        Tensors by the names in the file.

    Raises:
        UserError: the file cannot be read, or contains something other than named tensors.
    """
    content = read_file(file)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise UserError(f"{file} holds no named tensors")
    return content


def fingerprint(model: nn.Module) -> str:
    """Compute the sha256 of a network's tensors and of their names, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(model: nn.Module, file: Path, name: str) -> None:
    """Load a file's weights into `model`, in place: all tensors of the model or none.

    Prefixes of wrappers are removed. Tensors that belong to no part of the model (a classifier, a
    projector) are ignored.

    Args:
        model: the network.
        file: see `read_file`.
        name: the model's name, for the error message.

    Raises:
        UserError: a tensor of the model is missing in the file or has another shape, or the file
            has more than `MOST_UNUSED` tensors that the model lacks: it is a deeper network's.
    """
    loaded = {_without_prefixes(key): value for key, value in read_weights(file).items()}
    state = model.state_dict()
    matched = {k: loaded[k] for k, v in state.items() if k in loaded and loaded[k].shape == v.shape}
    if len(matched) < len(state):
        first = next(key for key in state if key not in matched)
        problem = f"shape {list(loaded[first].shape)}" if first in loaded else "missing"
        stem = first in loaded and first.startswith(("conv1.", "stem.", "patch_embed."))
        raise UserError(
            f"{file} matches {len(matched)} of {len(state)} tensors of {name}. The first that "
            f"does not match is {first}: {problem}, needed {list(state[first].shape)}"
            + ". If the file is of another stem, give --encoder.stem standard or small"
            * stem
        )
    parts = {key.split(".")[0] for key in state}
    unused = [
        key
        for key in loaded
        if key not in state and key.split(".")[0] in parts and is_of_encoder(key)
    ]
    require_same_network(unused, sum(map(is_of_encoder, matched)), f"{file} is of another network")
    model.load_state_dict(matched)


def is_of_encoder(key: str) -> bool:
    """Whether a tensor's name is of a trained tensor and not of a head."""
    return not BUFFERS.search(key) and not HEAD.match(key)


def require_same_network(unused: list[str], matched: int, other: str) -> None:
    """Raise a UserError if more than `MOST_UNUSED` of a file's encoder tensors are unused."""
    total = matched + len(unused)
    require(
        len(unused) <= MOST_UNUSED * total,
        f"{other}: {len(unused)} of its {total} encoder tensors would stay unused, such as "
        f"{first_names(unused)}. Name the model that it was trained as",
    )


def first_names(names: list[str]) -> str:
    """The first three names, for a sentence."""
    return ", ".join(names[:3]) + " and others" * (len(names) > 3)


def _without_prefixes(key: str) -> str:
    """Remove prefixes until none is left: "module.encoder.fc.bias" -> "fc.bias"."""
    prefix = next((p for p in PREFIXES if key.startswith(p)), None)
    return key if prefix is None else _without_prefixes(key[len(prefix) :])


def _unsafe_names(file: Path) -> str:
    """List the first names in a pickle that stand for code, for the error message."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError, OSError):  # torch cannot list those of its old file format
        return ""
    return f" ({', '.join(names[:3])}{'...' if len(names) > 3 else ''})" if names else ""
