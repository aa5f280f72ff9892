"""The certificate: a method's gradient is the same on any number of processes and micro-batches."""

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
from selfsup.core.live import doing
from selfsup.core.processors import kind_of_device
from selfsup.data.loader import Batches
from selfsup.data.samplers import PKSampler, Sampler, ShuffleSampler
from selfsup.data.sources import ArraySource
from selfsup.doctor.cases import CASES, CLASSES, IMAGES, Case
from selfsup.encoders.encoder import build_for
from selfsup.losses.shares import whatever_size
from selfsup.training.pretrain import local_batches
from selfsup.training.step import Stepper

BATCH = 16
TIMEOUT = 600  # seconds until processes count as stuck
FIRST = 2  # the first step, any but 0
Precision = Literal["no", "bf16"]
LIMITS: dict[Precision, float] = {"no": 1e-4, "bf16": 0.05}
"""Largest relative error that rounding explains: sums of float32 in another order, and of
bfloat16, whose numbers have three digits. A wrong gradient has an error of tenths."""
NAMES: dict[Precision, str] = {"no": "float32", "bf16": "bfloat16"}


class Measurement(NamedTuple):
    """Loss and gradient of a method after some batches."""

    loss: float
    gradients: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor]
    """The whole state before the last gradient: weights, teachers, queues, centres."""


def measure(
    names: Iterable[str],
    *,
    micro_batches: int,
    steps: int = 1,
    lr: float = 0.0,
    dtype: torch.dtype = torch.float32,
    cases: Mapping[str, Case] = CASES,
    encoder: EncoderConfig | None = None,
    stepper: Callable[..., Stepper] = Stepper,
) -> dict[str, Measurement]:
    """Train each method for `steps` steps of 16 images, then compute one more gradient.

    Each process splits its local batch into `micro_batches`. With a learning rate of 0 queues and
    centres fill while weights stay, so that gradients differ only by their own rounding. `encoder`
    replaces that of the cases.
    """
    measurements = {}
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
        measurements[name] = Measurement(loss, gradients, state)
    return measurements


def prepare(
    case: Case,
    encoder: EncoderConfig | None = None,
    *,
    micro_batches: int = 1,
    lr: float = 1e-3,
    dtype: torch.dtype = torch.float32,
    stepper: Callable[..., Stepper] = Stepper,
) -> tuple[Stepper, Batches]:
    """Make a method with SGD, the same every time, and batches of 16 images in 8 classes.

    `encoder` replaces that of the case.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (IMAGES, 4, 4, 3), dtype=np.uint8)
    images = coarse.repeat(5, 1).repeat(5, 2)  # embeddings of noise would be nearly equal
    labels = torch.arange(IMAGES) % CLASSES
    source = ArraySource(images, labels, [str(c) for c in range(CLASSES)])
    make, views = case.make, case.views
    accelerator = distributed.start()
    torch.manual_seed(0)
    method = make(build_for(encoder or case.encoder, views)).to(accelerator.device, dtype)
    sampler: Sampler = ShuffleSampler(IMAGES, batch=BATCH, seed=0)
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


def error(measurement: Measurement, reference: Measurement) -> float:
    """The largest relative error of the gradient of any parameter.

    |gradient - reference| / |reference| of each parameter. Where the reference is below a tenth of
    the norm of all gradients, the error is relative to that tenth: the gradient of a bias is a sum
    over the batch in which nearly everything cancels, except rounding.
    """
    total = torch.stack([g.norm() for g in reference.gradients.values()]).norm()
    assert measurement.gradients.keys() == reference.gradients.keys()
    errors = [
        (measurement.gradients[name] - g).norm() / g.norm().clamp(min=total / 10)
        for name, g in reference.gradients.items()
    ]
    worst = float(torch.stack(errors).max())  # nan if any is
    return worst if math.isfinite(worst) else math.inf


class Line(NamedTuple):
    """A method in one configuration of processes, micro-batches and precision."""

    method: str
    processes: int
    micro_batches: int
    precision: Precision
    device: str
    error: float
    loss: float
    """Relative error of the loss: a wrong gradient may have the right loss."""
    passed: bool


def certificate(names: Iterable[str] = CASES, *, script: str = "") -> list[Line]:
    """Certify each method on 1 and 2 processes with 1 and 2 micro-batches, in two precisions.

    Each precision is compared with one big batch in the same precision on the same device: a GPU
    for each process, or the CPU where there are fewer. Processes start as those of a run: several
    through torchrun.

    Args:
        names: of methods.
        script: what the processes run; by default this file.

    Raises:
        UserError: a process failed; with the end of its output.
    """
    names = list(names)
    lines = []
    for precision in LIMITS:
        runs: dict[tuple[int, str], dict[int, dict[str, Measurement]]] = {}
        for processes, micro_batches in ((1, 2), (2, 1), (2, 2)):
            device = _device_of(processes)
            for count in (1, processes):
                if (count, device) not in runs:
                    doing(f"gradients on {count} x {device}, {NAMES[precision]}")
                    runs[count, device] = _run(names, count, device, precision, script)
            for name in names:
                measurement = runs[processes, device][micro_batches][name]
                line = name, processes, micro_batches, precision, device
                lines.append(_line(*line, measurement, runs[1, device][1][name]))
    return sorted(lines, key=lambda line: (list(LIMITS).index(line.precision), line.method))


def _device_of(processes: int) -> str:
    """Device of each of so many processes."""
    kind = kind_of_device()
    most = torch.cuda.device_count() if kind == "cuda" else 1
    return kind if processes <= most else "cpu"


def _line(
    name: str,
    processes: int,
    micro_batches: int,
    precision: Precision,
    device: str,
    measurement: Measurement,
    reference: Measurement,
) -> Line:
    gradient, limit = error(measurement, reference), LIMITS[precision]
    loss = abs(measurement.loss - reference.loss) / max(abs(reference.loss), 1e-12)
    passed = gradient <= limit and loss <= limit  # false for nan
    return Line(name, processes, micro_batches, precision, device, gradient, loss, passed)


def _run(
    names: list[str], processes: int, device: str, precision: Precision, script: str
) -> dict[int, dict[str, Measurement]]:
    """Measure on `processes` processes, by number of micro-batches."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measurements.pt"
        try:
            done = subprocess.run(
                [*start, script or __file__, str(file), *names],
                env=distributed.launch_environment(precision, device),
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{processes} processes on {device} were stuck for {TIMEOUT} s"
            ) from None
        if done.returncode or not file.exists():
            reason = _reason(done.stderr)
            raise UserError(f"{processes} processes on {device} could not train: {reason}")
        saved = torch.load(file, weights_only=True)
    return {
        count: {name: Measurement(*fields) for name, fields in by_name.items()}
        for count, by_name in saved.items()
    }


def _reason(stderr: str) -> str:
    """The last error of a process itself, rather than the launcher's summary of it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.match(r"(\[rank\d+\]: )?[\w.]*(Error|Exception): ", line)
    ]
    process_errors = [line for line in errors if "ChildFailedError" not in line]
    return (process_errors or errors or lines or ["nothing"])[-1][:300]


def work(file: Path, names: list[str], stepper: Callable[..., Stepper] = Stepper) -> None:
    """Measure on one process of a certificate; the main process saves the results."""
    torch.set_num_threads(1)
    # TF32 has the digits of bfloat16, and convolutions use it by default: an error, not a rounding
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    with whatever_size():
        runs = {count: measure(names, micro_batches=count, stepper=stepper) for count in (1, 2)}
    if distributed.is_main():
        plain = {
            count: {name: tuple(fields) for name, fields in by_name.items()}
            for count, by_name in runs.items()
        }
        torch.save(plain, file)
    distributed.finish()


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2:])
