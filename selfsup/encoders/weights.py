"""Weight files: the one function that reads them, and how they are matched to a network."""

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

from selfsup.core.errors import UserError

WRAPPERS = ("state_dict", "model", "teacher", "student")  # where files of weights keep them
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")

PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    scalar,
    (scalar, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "?")),
]
"""What files of training hold beside tensors that is data and nothing else: flags and numbers."""

BROKEN = (
    *(safetensors.SafetensorError, RuntimeError, OSError, EOFError, ValueError),
    *(IndexError, KeyError, TypeError, AttributeError, struct.error),
)
"""What torch's readers raise of a damaged file."""


def read_file(file: Path) -> Any:
    """What a .safetensors file or a torch file holds; code in a pickle is never run.

    Raises:
        UserError: there is no such file, or it holds more than plain data.
    """
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise UserError(f"{file} is no file of weights, or damaged") from None
        raise UserError(
            f"{file} is a pickle with more than tensors in it{_strangers(file)}; it was not "
            "opened, because that can run code; save the state_dict alone, best as .safetensors"
        ) from None
    except BROKEN as error:
        first = str(error).split("\n")[0]
        raise UserError(f"{file} is no file of weights: {first}") from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, see `read_file`.

    Raises:
        UserError: there is no such file, or it holds something other than named tensors.
    """
    found = read_file(file)
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    ):
        raise UserError(f"{file} holds no named tensors")
    return found


def fingerprint(model: nn.Module) -> str:
    """sha256 of a network's tensors and of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fill(model: nn.Module, file: Path, name: str) -> None:
    """Load a file's weights into `model`, all of them or none.

    Prefixes of wrappers are taken off; tensors that the model does not have (a classifier, a
    projector) are passed over.

    Raises:
        UserError: a tensor of the model is missing in the file or has another shape.
    """
    given = {_bare(key): value for key, value in read_weights(file).items()}
    wanted = model.state_dict()
    matched = {k: given[k] for k, v in wanted.items() if k in given and given[k].shape == v.shape}
    if len(matched) < len(wanted):
        first = next(key for key in wanted if key not in matched)
        told = f"shape {list(given[first].shape)}" if first in given else "missing"
        raise UserError(
            f"{file} matches {len(matched)} of {len(wanted)} tensors of {name}; the first that "
            f"does not is {first}: {told}, needed {list(wanted[first].shape)}"
        )
    model.load_state_dict(matched)


def _bare(key: str) -> str:
    prefix = next((p for p in PREFIXES if key.startswith(p)), None)
    return key if prefix is None else _bare(key[len(prefix) :])


def _strangers(file: Path) -> str:
    """The first names in a pickle that stand for code."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError, OSError):  # of the old format they cannot be listed
        return ""
    return f" ({', '.join(names[:3])}{'...' if len(names) > 3 else ''})" if names else ""
