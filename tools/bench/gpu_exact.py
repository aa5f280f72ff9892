"""Pieces of tools/gpu_check.py: versions, every method beside the CPU, waits, the certificate."""

import itertools
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_figures import DEVICE, Figure, Piece, at_most, cost, run_pieces

from selfsup.doctor.cases import CASES
from selfsup.doctor.certificate import FIRST, _run, certificate, error, prepare

FEW = ["simclr", "dino", "triplet"]
MINED = {"triplet": 1, "triplet+distil": 1}
"""Waits of methods that choose triplets by distance; others wait for nothing in a step."""


def names(piece: Piece) -> list[str]:
    """The methods of a piece."""
    return FEW if piece.small else list(CASES)


def versions(piece: Piece) -> list[Figure]:
    """Card, driver and packages, and whether these are new enough."""
    from importlib.metadata import version

    from selfsup.doctor.machine import packages

    found = {name: version(name) for name in ("torch", "torchvision", "timm", "accelerate")}
    if DEVICE.type == "cuda":
        found["card"] = torch.cuda.get_device_name()
        found["memory"] = f"{torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB"
        found["cuda"] = str(torch.version.cuda)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    wrong = [f"{p.name} {p.version} {p.problem}" for p in packages() if p.problem and not p.extra]
    needed = Figure("packages that do not fit", len(wrong), ", ".join(wrong), "none", not wrong)
    return [*(Figure(name, value) for name, value in found.items()), needed]


def methods(piece: Piece) -> list[Figure]:
    """Loss and gradient of every method on the device, beside the CPU's, in float32."""
    chosen = names(piece)
    here = _run(chosen, 1, DEVICE.type, "no", "")[1]
    there = _run(chosen, 1, "cpu", "no", "")[1]
    figures = []
    for name in chosen:
        loss = abs(here[name].loss - there[name].loss) / max(abs(there[name].loss), 1e-12)
        figures.append(at_most(f"{name}, loss", loss, 1e-5))
        figures.append(at_most(f"{name}, gradient", error(here[name], there[name]), 1e-4))
    return figures


def waits(piece: Piece) -> list[Figure]:
    """Times that a step waits for the device, its launches and its time, for tiny batches."""
    figures = []
    for name in names(piece):
        one = steps_of(name)
        for _ in range(3):
            one()
        places = waits_of(one)
        where = ", ".join(f"{place} {n}" for place, n in places.most_common())
        figures.append(at_most(f"{name}, waits", places.total(), MINED.get(name, 0), where))
        figures.append(Figure(f"{name}, launches", launches_of(one)))
        figures.append(Figure(f"{name}, step", cost(one, 5).ms, "ms"))
    return figures


def steps_of(name: str) -> Callable[[], None]:
    """A function that trains a method by a step, each time on the next of eight batches."""
    step, batches = prepare(CASES[name])
    read = itertools.cycle([batches[i] for i in range(FIRST, FIRST + 8)])

    def one() -> None:
        batch = next(read)
        step(batch)
        step.method.after_step(step.embeddings, step.labels, step.info(batch))

    return one


def waits_of(work: Callable[[], None]) -> Counter[str]:
    """Where some work waits for the device, and how often."""
    if DEVICE.type != "cuda":
        return Counter()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    )


def launches_of(work: Callable[[], None]) -> int:
    """Kernels that the device starts."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU]
    if DEVICE.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as profiler:
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
    return sum(event.count for event in profiler.key_averages() if "LaunchKernel" in event.key)


def doctor(piece: Piece) -> list[Figure]:
    """The certificate, which calls every method right."""
    lines = certificate(names(piece))
    wrong = sorted({line.method for line in lines if not line.passed})
    figures = [at_most("methods that are called wrong", len(wrong), 0, ", ".join(wrong))]
    for device, precision in sorted({(line.device, line.precision) for line in lines}):
        these = [line for line in lines if (line.device, line.precision) == (device, precision)]
        worst = max(these, key=lambda line: line.error)
        figures.append(Figure(f"worst on {device}, {precision}", worst.error, worst.method))
    return figures


if __name__ == "__main__":
    run_pieces({"versions": versions, "methods": methods, "waits": waits, "doctor": doctor})
