"""Weight files: read them without running code; names of heads and buffers; fingerprints."""

import argparse
import hashlib
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy._core.multiarray import scalar
from torch import nn

from selfsup.core.errors import UnusableError, UserError, require
from selfsup.core.tensor_files import check_header
from selfsup.encoders.third_party_names import BUFFERS, HEAD

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
        if file.exists() and not file.is_file():
            raise UserError(f"{file} is a pipe, a device or a folder, not a file of weights")
        if file.suffix == ".safetensors":
            check_header(file)
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals(SAFE_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is unusual is refused, or it works
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise UserError(f"{file} is not a file of weights, or it is damaged") from None
        raise UserError(
            f"{file} is a pickle with more than tensors in it{_unsafe_names(file)}. It was not "
            "opened, because that can run code. Save only the state_dict, best as .safetensors"
        ) from None
    except READ_ERRORS as error:
        why = f" ({error})" if isinstance(error, safetensors.SafetensorError) else ""
        what = "is empty" if file.is_file() and file.stat().st_size == 0 else f"is damaged{why}"
        raise UserError(f"{file} is not a file of weights, or it {what}") from None


def require_finite(model: nn.Module, place: Path) -> None:
    """Refuse weights of which some are not finite, as a run that diverged leaves them.

    Raises:
        UnusableError: the first of them by name, and how many numbers of it.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            broken = int((~value.isfinite()).sum())
            raise UnusableError(
                f"{place}: {broken} of {value.numel()} numbers of {name} are not finite (nan or "
                "infinite), so that nothing can be computed with them. Take other weights"
            )


def fingerprint(model: nn.Module) -> str:
    """Compute the sha256 of a network's tensors and of their names, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe_network(model: nn.Module) -> str:
    """Name a network's class and its pooling, which its weights do not tell."""
    pooling = " ".join(str(getattr(model, "global_pool", "")).split())
    return f"{type(model).__name__} {pooling}"


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


def _unsafe_names(file: Path) -> str:
    """List the first names in a pickle that stand for code, for the error message."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (*READ_ERRORS, pickle.UnpicklingError):  # damaged, or of torch's old file format
        return ""
    return f" ({', '.join(names[:3])}{'...' if len(names) > 3 else ''})" if names else ""
