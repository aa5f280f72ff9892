"""Checkpoints: weights, optimiser state and a step, complete or absent, without pickle.

A checkpoint is a folder step-00001000 with model.safetensors, optimizer.safetensors and
manifest.json, which has the size and sha256 of the other two. It is written to another name,
flushed to disk and renamed, so that a kill at any moment leaves the older ones untouched. Other
folders beside them, such as step-best, are neither read nor deleted.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from selfsup.core.disk import flush, same_permissions, write_to
from selfsup.core.errors import UnusableError
from selfsup.core.json_files import read_json
from selfsup.core.transfers import fetch

FILES = ("model.safetensors", "optimizer.safetensors")
NAME = re.compile(r"step-(\d{8,})")
PARTIAL = re.compile(r"\.step-\d{8,}\.part")


class Snapshot(NamedTuple):
    """What a checkpoint holds, in memory of its own, so that training may go on."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    """Of the optimiser."""
    manifest: dict[str, Any]


def snapshot(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    extra: Any,
    work: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Copy the state of a run to the host's memory, in the plain layout that safetensors needs.

    Args:
        step: steps done.
        model: its weights and buffers are written.
        optimizer: its state is written.
        extra: whatever else training needs to go on, as JSON.
        work: what is trained on what, as JSON, for who goes on to compare.
    """
    tensors, settings = _flatten(optimizer)
    weights, state = fetch(model.state_dict()), fetch(tensors)
    manifest = {"step": step, "optimizer": settings, "extra": extra, "work": work}
    return Snapshot(step, weights, state, manifest)


def save(folder: Path, taken: Snapshot, *, keep: int) -> None:
    """Write folder/step-XXXXXXXX, and remove all that are older than the newest `keep` whole ones.

    Args:
        folder: the run's checkpoints.
        taken: what to write.
        keep: whole checkpoints that stay.

    Raises:
        UserError: it cannot be written; the older ones are as they were, and no half one is left.
    """
    final = folder / f"step-{taken.step:08d}"
    tensors = (*taken.weights.values(), *taken.state.values())
    clean(folder)
    write_to(
        final,
        lambda: _write(final, taken),
        needed=sum(x.numel() * x.element_size() for x in tensors),
        clean=lambda: clean(folder),
    )
    whole = 0
    for path in sorted(own_folders(folder), key=step_of, reverse=True):
        if whole >= keep:
            shutil.rmtree(path, ignore_errors=True)
        elif _damage(path) is None:
            whole += 1


def _write(final: Path, taken: Snapshot) -> None:
    """Write a checkpoint beside its place and move it there when it is complete."""
    partial = final.with_name(f".{final.name}.part")
    partial.mkdir(parents=True)
    safetensors.torch.save_file(taken.weights, partial / FILES[0])
    safetensors.torch.save_file(taken.state, partial / FILES[1])
    manifest = taken.manifest | {"files": {name: fingerprint(partial / name) for name in FILES}}
    manifest["sha256"] = _digest(manifest)
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
    same_permissions(partial, "manifest.json")
    for name in (*FILES, "manifest.json"):
        flush(partial / name)
    flush(partial)
    if final.is_dir():
        shutil.rmtree(final)
    partial.rename(final)
    flush(final.parent)


def clean(folder: Path) -> None:
    """Remove what killed saves left behind, of any step."""
    if folder.is_dir():
        for path in folder.iterdir():
            if PARTIAL.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def own_folders(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or not: names that are no step's belong to others."""
    return [p for p in folder.iterdir() if NAME.fullmatch(p.name)] if folder.is_dir() else []


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint, or of another of `own_folders`."""
    return int(path.name.removeprefix("step-"))


def any_in(run: Path) -> bool:
    """Whether a run folder has checkpoints, whole or not."""
    return bool(own_folders(run / "checkpoints"))


def work_of(run: Path) -> dict[str, Any] | None:
    """Return what the newest whole checkpoint of a run folder was trained on; None if unknown."""
    for path in sorted(own_folders(run / "checkpoints"), key=step_of, reverse=True):
        if _damage(path) is None:
            work = read_json(path / "manifest.json").get("work")
            return work if isinstance(work, dict) else None
    return None


def steps_of(run: Path) -> list[int]:
    """Return the steps of a run folder's checkpoints, whole or not."""
    return sorted(map(step_of, own_folders(run / "checkpoints")))


def newest(folder: Path, print_line: Callable[[str], None]) -> Path | None:
    """Find the newest checkpoint that is undamaged; None when there is none at all.

    Args:
        folder: the run's checkpoints.
        print_line: gets a sentence for each damaged checkpoint that was skipped.

    Raises:
        UserError: there are checkpoints and all are damaged.
    """
    checkpoints = sorted(own_folders(folder), key=step_of, reverse=True)
    reasons: list[str] = []
    for path in checkpoints:
        why = _damage(path)
        if why is None:
            for reason in reasons:
                print_line(f"skipped {reason}")
            return path
        reasons.append(f"{path.name}: {why}")
    if checkpoints:
        raise UnusableError(
            f"no checkpoint in {folder} is whole ({'; '.join(reasons)}); "
            "move them away to start again, or restore one"
        )
    return None


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Any]:
    """Load a checkpoint into model and optimiser, in place, and return its step and extra state."""
    manifest = read_json(path / "manifest.json")
    try:
        model.load_state_dict(safetensors.torch.load_file(path / FILES[0]))
    except RuntimeError as error:
        raise UnusableError(
            f"{path} is of another network: {str(error).splitlines()[-1].strip()}"
        ) from None
    tensors = safetensors.torch.load_file(path / FILES[1])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    current = optimizer.state_dict()["param_groups"]  # may have settings that an old file has not
    if len(current) != len(manifest["optimizer"]):
        raise UnusableError(
            f"{path} has {len(manifest['optimizer'])} groups of parameters and this run "
            f"{len(current)}: it is of other settings"
        )
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


_read: dict[tuple[int, ...], str] = {}
"""sha256 of files that this process has read, so that pruning need not read them again."""


def fingerprint(file: Path) -> dict[str, Any]:
    """Return the size of a file and its sha256, as a manifest has them."""
    with file.open("rb") as data:
        status = os.fstat(data.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in _read:
            _read[key] = hashlib.file_digest(data, "sha256").hexdigest()
    return {"bytes": status.st_size, "sha256": _read[key]}


def _digest(manifest: dict[str, Any]) -> str:
    """Hash a manifest without its sha256 field."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _damage(path: Path) -> str | None:
    """Describe why a checkpoint cannot be used; None where it can."""
    try:
        manifest = read_json(path / "manifest.json")
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
    except NotADirectoryError:
        return "it is a file"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "manifest.json cannot be read"
    return None
