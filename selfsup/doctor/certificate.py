"""The equivalence certificate: one gradient, however many processes and micro-batches held it."""

import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from selfsup.config import EncoderConfig
from selfsup.core import distributed
from selfsup.core.errors import UserError
from selfsup.data.loader import Batches, Sampler
from selfsup.data.samplers import PKSampler, ShuffleSampler
from selfsup.data.sources import ArraySource
from selfsup.doctor.cases import CASES, CLASSES, ONE_GROUP, Case
from selfsup.encoders.encoder import build_for
from selfsup.training.pretrain import local_batches
from selfsup.training.step import Stepper

BATCH = 16
PATIENCE = 600  # seconds until processes count as stuck
FIRST = 2  # the step to begin with: any but 0
Precision = Literal["no", "bf16"]
LIMITS: dict[Precision, float] = {"no": 1e-4, "bf16": 0.05}
"""Largest relative error that rounding explains: sums of float32 in another order, and of
bfloat16, whose numbers have three digits. A wrong gradient is off by tenths."""


class Found(NamedTuple):
    """What a method did with some batches."""

    loss: float
    gradients: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor]
    """The whole state in front of the last gradient: weights, teachers, queues, centres."""


def measure(
    names: Iterable[str],
    *,
    micro_batches: int,
    steps: int = 1,
    lr: float = 0.0,
    dtype: torch.dtype = torch.float32,
    cases: Mapping[str, Case] = CASES,
    encoder: EncoderConfig = ONE_GROUP,
    stepper: Callable[..., Stepper] = Stepper,
) -> dict[str, Found]:
    """Train each method for `steps` steps of 16 images, then take one more gradient.

    Each process takes its share of each batch in `micro_batches` parts. With a learning rate of 0
    queues and centres fill and weights stay, so that gradients differ by their own rounding alone.
    """
    found = {}
    for name in names:
        step, batches = prepare(
            cases[name],
            encoder,
            micro_batches=micro_batches,
            lr=lr,
            dtype=dtype,
            stepper=stepper,
        )
        method = step.method
        for i in range(FIRST, FIRST + steps):
            step(batches[i])
            method.after_step(step.embeddings, step.labels, step.info(batches[i]))
        state = {n: x.detach().cpu().clone() for n, x in method.state_dict().items()}
        loss = step.gradient(batches[FIRST + steps]).item()
        gradients = {
            n: p.grad.cpu().clone() for n, p in method.named_parameters() if p.grad is not None
        }
        found[name] = Found(loss, gradients, state)
    return found


def prepare(
    case: Case,
    encoder: EncoderConfig = ONE_GROUP,
    *,
    micro_batches: int = 1,
    lr: float = 1e-3,
    dtype: torch.dtype = torch.float32,
    stepper: Callable[..., Stepper] = Stepper,
) -> tuple[Stepper, Batches]:
    """A new method with SGD, the same every time, and batches of 16 images in 8 classes for it."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    images = coarse.repeat(5, 1).repeat(5, 2)  # of noise all embeddings would be nearly equal
    labels = torch.arange(64) % CLASSES
    source = ArraySource(images, labels, [str(c) for c in range(CLASSES)])
    make, views = case
    accelerator = distributed.start()
    torch.manual_seed(0)
    method = make(build_for(encoder, views)).to(accelerator.device, dtype)
    sampler: Sampler = ShuffleSampler(64, batch=BATCH, seed=0)
    if views.views == 1:
        sampler = PKSampler(labels, p=4, k=4, seed=0)
    step = stepper(
        accelerator,
        method,
        torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr),
        views=views,
        micro_batch=BATCH // accelerator.num_processes // micro_batches,
        seed=0,
        total=10,
    )
    return step, local_batches(source, sampler, views, 0)


def error(found: Found, reference: Found) -> float:
    """The largest relative error of the gradient of any parameter.

    |gradient - reference| / |reference| of each parameter; one whose own gradient is below a tenth
    of all of them together is measured by that tenth: the gradient of a bias is a sum over the
    batch in which nearly everything cancels, but for the rounding.
    """
    whole = torch.stack([g.norm() for g in reference.gradients.values()]).norm()
    assert found.gradients.keys() == reference.gradients.keys()
    apart = [
        (found.gradients[name] - g).norm() / g.norm().clamp(min=whole / 10)
        for name, g in reference.gradients.items()
    ]
    worst = float(torch.stack(apart).max())  # of any that is no number, none
    return worst if math.isfinite(worst) else math.inf


class Line(NamedTuple):
    """A method held in one way."""

    method: str
    processes: int
    micro_batches: int
    precision: Precision
    device: str
    error: float
    loss: float
    """How far the loss is off, relatively: a wrong gradient may have the right loss."""
    passed: bool


def certificate(names: Iterable[str] = CASES, *, script: str = "") -> list[Line]:
    """Each method on 1 and 2 processes with 1 and 2 micro-batches, in float32 and bfloat16.

    Each precision is held against one big batch of its own on the same device: a GPU for each
    process, or the CPU where there are fewer. Processes are started as a run is, through torchrun.

    Args:
        names: of methods.
        script: what the processes run; by default this file.

    Raises:
        UserError: the processes did not end well; with the end of what they said.
    """
    names = list(names)
    lines = []
    for precision in LIMITS:
        made: dict[tuple[int, str], dict[int, dict[str, Found]]] = {}
        for processes, micro_batches in ((1, 2), (2, 1), (2, 2)):
            device = "cuda" if torch.cuda.device_count() >= processes else "cpu"
            for count in (1, processes):
                if (count, device) not in made:
                    made[count, device] = _run(names, count, device, precision, script)
            for name in names:
                found = made[processes, device][micro_batches][name]
                line = name, processes, micro_batches, precision, device
                lines.append(_line(*line, found, made[1, device][1][name]))
    return sorted(lines, key=lambda line: (list(LIMITS).index(line.precision), line.method))


def _line(
    name: str,
    processes: int,
    micro_batches: int,
    precision: Precision,
    device: str,
    found: Found,
    reference: Found,
) -> Line:
    off, limit = error(found, reference), LIMITS[precision]
    loss = abs(found.loss - reference.loss) / max(abs(reference.loss), 1e-12)
    passed = off <= limit and loss <= limit  # false of what is no number
    return Line(name, processes, micro_batches, precision, device, off, loss, passed)


def _run(
    names: list[str], processes: int, device: str, precision: Precision, script: str
) -> dict[int, dict[str, Found]]:
    """What `processes` processes measured, by number of micro-batches."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.pt"
        try:
            done = subprocess.run(
                [*start, f"--nproc_per_node={processes}", script or __file__, str(file), *names],
                env=distributed.launch_environment(precision, device),
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{processes} processes on {device} were stuck for {PATIENCE} s"
            ) from None
        if done.returncode or not file.exists():
            told = _reason(done.stderr)
            raise UserError(f"{processes} processes on {device} could not train: {told}")
        made = torch.load(file, weights_only=True)
    return {
        count: {name: Found(*each) for name, each in found.items()} for count, found in made.items()
    }


def _reason(said: str) -> str:
    """The last error that a process told of itself, not what its launcher made of that."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.match(r"(\[rank\d+\]: )?[\w.]*(Error|Exception): ", line)
    ]
    own = [line for line in errors if "ChildFailedError" not in line]
    return (own or errors or lines or ["nothing"])[-1][:300]


def work(file: Path, names: list[str], stepper: Callable[..., Stepper] = Stepper) -> None:
    """What one process of a certificate does; the first one writes what was found."""
    torch.set_num_threads(1)
    made = {count: measure(names, micro_batches=count, stepper=stepper) for count in (1, 2)}
    if distributed.is_main():
        plain = {c: {n: tuple(f) for n, f in found.items()} for c, found in made.items()}
        torch.save(plain, file)
    distributed.finish()


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2:])
