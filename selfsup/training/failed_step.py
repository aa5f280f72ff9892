"""A step that fails: its batch is kept for replay, or the micro-batch that fits is measured."""

import contextlib
import json
import shlex
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfsup.core import distributed
from selfsup.core.disk import write_whole
from selfsup.core.errors import DivergedError, NoRoomError
from selfsup.core.memory import is_out_of_memory
from selfsup.data.loader import Batch, Batches
from selfsup.data.sources import Source
from selfsup.training import checkpoint
from selfsup.training.finite import FiniteCheck
from selfsup.training.run import Run
from selfsup.training.step import Stepper

FILE = "failed_step.json"
MOST_IMAGES = 4096
MOST_TENSORS = 20
LONGEST = 500
"""How much the file holds: images, names of tensors, characters of a name."""


@contextlib.contextmanager
def explained(run: Run, stepper: Stepper, batches: Batches, batch: Batch) -> Iterator[None]:
    """Take a step in the block, and say what helps if it is not finite or memory is full.

    Raises:
        DivergedError: the step was not finite; the run folder says on which images.
        NoRoomError: memory was full; the sentence has the largest micro-batch that fits.
    """
    try:
        yield
    except DivergedError as error:
        run.saving.close()  # the newest checkpoint counts, too
        assert stepper.check is not None
        file = run.folder / FILE
        if run.main:
            _write(file, _describe(run, stepper.check, batches, str(error)))
        raise DivergedError(f"{error}. {_how_to_replay(run, stepper.check.step)}") from None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        run.saving.close()
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
        raise NoRoomError(_what_fits(run, stepper, batch)) from None


def _describe(run: Run, check: FiniteCheck, batches: Batches, reason: str) -> dict[str, Any]:
    """Return what replays a step: images and draws follow from the seed and the step."""
    step = check.step
    positions = batches.sampler(step).tolist()
    flat = torch.cat([x.reshape(len(x), -1) for x in check.embeddings], 1)
    finite = flat.isfinite().all(1).tolist()
    rows = sorted(range(len(positions)), key=lambda i: (finite[i], i))[:MOST_IMAGES]
    broken = check.broken_gradients()
    return {
        "step": step,
        "seed": run.config.seed,
        "processes": distributed.world()[1],
        "micro_batch": run.config.micro_batch,
        "data": str(run.config.data),
        "reason": reason,
        "checkpoints": checkpoint.steps_of(run.folder),
        "gradients_not_finite": broken[:MOST_TENSORS],
        "gradients_not_finite_in_all": len(broken),
        "images_in_all": len(positions),
        "images": [_image(batches.source, positions[i], i, finite[i]) for i in rows],
    }


def _image(source: Source, position: int, row: int, finite: bool) -> dict[str, Any]:
    name = source.name(position)[:LONGEST]
    return {"row": row, "position": position, "name": name, "embedding_is_finite": finite}


def _write(file: Path, values: dict[str, Any]) -> None:
    """Write the file; that it cannot be written must not hide why the run ends."""
    with contextlib.suppress(OSError):
        write_whole(file, json.dumps(values, indent=1) + "\n")


def _how_to_replay(run: Run, step: int) -> str:
    file = run.folder / FILE
    settings = run.folder / "config.yaml"
    again = "the same command repeats this step from the newest checkpoint"
    if not Path(str(run.config.data)).exists():
        return f"{file} has the images of the step; {again}"
    view = shlex.join(["selfsup", "views", "--config", str(settings), "--step", str(step)])
    return f"{file} has its images, `{view}` shows them; {again}"


def _what_fits(run: Run, stepper: Stepper, batch: Batch) -> str:
    """Try smaller micro-batches, the largest first, and describe the result."""
    images = len(batch.positions)
    now = stepper.micro_batch or images
    norms = (m for m in stepper.method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    normed = any(norms)
    least, but = (2, ", but that batch norms see fewer images") if normed else (1, "")
    stepper.optimizer.zero_grad()
    sizes = [n for n in range(now - 1, least - 1, -1) if images % n == 0]
    fitting = next((n for n in sizes if _fits(stepper, batch, n)), None)
    steps = checkpoint.steps_of(run.folder)
    kept = f"the newest checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint"
    problem = f"out of memory at step {batch.step + 1}, with {now} images at a time; {kept}. "
    if fitting is not None:
        return (
            f"{problem}{fitting} at a time fit here: give the same command with --micro-batch "
            f"{fitting}, which leaves the gradient as it is{but}"
        )
    return (
        f"{problem}Nor do {sizes[-1] if sizes else now} fit: take a smaller encoder or "
        "--views.size, or --checkpoint-activations"
    )


def _fits(stepper: Stepper, batch: Batch, images: int) -> bool:
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    try:
        stepper.try_micro_batch(batch, images)
    except (RuntimeError, MemoryError) as error:  # with little memory oneDNN has words of its own
        traceback.clear_frames(error.__traceback__)
        return False
    return True
