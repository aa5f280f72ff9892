"""Checkpoints: weights, optimiser state and a step, complete or absent, without pickle.

A checkpoint is a folder step-00001000 with model.safetensors, optimizer.safetensors and
manifest.json, which has the size and sha256 of the other two. It is written to another name,
flushed to disk and renamed, so that a kill at any moment leaves the older ones untouched.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from selfsup.core.errors import UserError

FILES = ("model.safetensors", "optimizer.safetensors")


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    keep: int,
    extra: Any,
) -> None:
    """Write folder/step-XXXXXXXX and remove all but the newest `keep`."""
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors, settings = _flatten(optimizer)
    safetensors.torch.save_file(_copies(model.state_dict()), partial / FILES[0])
    safetensors.torch.save_file(_copies(tensors), partial / FILES[1])
    manifest = {
        "step": step,
        "files": {name: fingerprint(partial / name) for name in FILES},
        "optimizer": settings,
        "extra": extra,
    }
    manifest["sha256"] = _digest(manifest)
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for name in (*FILES, "manifest.json"):
        _flush(partial / name)
    _flush(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _flush(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def any_in(run: Path) -> bool:
    """Whether a run folder has checkpoints, whole or not."""
    return any((run / "checkpoints").glob("step-*"))


def steps_of(run: Path) -> list[int]:
    """Return the steps of a run folder's checkpoints, whole or not."""
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


def newest(folder: Path, print_line: Callable[[str], None]) -> Path | None:
    """Find the newest checkpoint that is undamaged; None when there is none at all.

    Args:
        folder: the run's checkpoints.
        print_line: gets a sentence for each damaged checkpoint that was skipped.

    Raises:
        UserError: there are checkpoints and all are damaged.
    """
    checkpoints = sorted(folder.glob("step-*"), reverse=True)
    reasons: list[str] = []
    for path in checkpoints:
        why = _damage(path)
        if why is None:
            for reason in reasons:
                print_line(f"skipped {reason}")
            return path
        reasons.append(f"{path.name}: {why}")
    if checkpoints:
        raise UserError(
            f"no checkpoint in {folder} is whole ({'; '.join(reasons)}); "
            "move them away to start again, or restore one"
        )
    return None


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Any]:
    """Load a checkpoint into model and optimiser, in place, and return its step and extra state."""
    manifest = json.loads((path / "manifest.json").read_text())
    try:
        model.load_state_dict(safetensors.torch.load_file(path / FILES[0]))
    except RuntimeError as error:
        raise UserError(
            f"{path} is of another network: {str(error).splitlines()[-1].strip()}"
        ) from None
    tensors = safetensors.torch.load_file(path / FILES[1])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    current = optimizer.state_dict()["param_groups"]  # may have settings that an old file has not
    groups = [
        now | old | {key: now[key] for key in ("name",) if key in now}
        for now, old in zip(current, manifest["optimizer"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(manifest["step"]), manifest["extra"]


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """Return an optimiser's state as named tensors and its groups as plain settings."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": value
        for index, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    return tensors, state["param_groups"]


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy each tensor to memory of its own in plain layout, as safetensors needs it."""
    return {
        k: v.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for k, v in tensors.items()
    }


def fingerprint(file: Path) -> dict[str, Any]:
    """Return the size of a file and its sha256, as a manifest has them."""
    with file.open("rb") as data:
        return {
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(data, "sha256").hexdigest(),
        }


def _digest(manifest: dict[str, Any]) -> str:
    """Hash a manifest without its sha256 field."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _damage(path: Path) -> str | None:
    """Describe why a checkpoint cannot be used; None where it can."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest.pop("sha256") != _digest(manifest):
            return "manifest.json has changed since it was written"
        for name, expected in manifest["files"].items():
            actual = fingerprint(path / name)
            if actual["bytes"] != expected["bytes"]:
                return f"{name} has {actual['bytes']} bytes of {expected['bytes']}"
            if actual != expected:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return "manifest.json cannot be read"
    return None


def _flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
