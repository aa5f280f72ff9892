"""What a run needs: disk before it starts, time and memory by its first steps."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from selfsup.config import EncoderConfig, PretrainConfig, TrainConfig
from selfsup.config.presets import largest_side, preset_encoder
from selfsup.core.disk import free_bytes
from selfsup.core.errors import UserError
from selfsup.core.live import doing, duration
from selfsup.core.processors import cores, device_name, unused_apple_gpu, waited_for_cores
from selfsup.core.transfers import wait_for
from selfsup.data.loader import AHEAD, Batches
from selfsup.encoders.encoder import build
from selfsup.encoders.evaluation_view import SMALL
from selfsup.encoders.lora import without_lora
from selfsup.methods.method import Method
from selfsup.training.run import Run

MEASURED_STEPS, MEASURED = 3, 3.0
"""Steps after the first that are measured, and seconds that these take at least..."""
LONG_ENOUGH = 20.0
"""...unless they take so many seconds."""
WORTH_A_HINT = 1800.0
"""Seconds of a run above which a quicker preset is named, if it is QUICKER times quicker."""
QUICKER = 5
BUSY = 0.25
"""Fraction of their time that threads wait for a core, from which on the machine is called busy."""
TRIED = {"cpu": 8, "cuda": 64}
"""Images of the networks that are compared for the hint..."""
PASSES = 4
"""...in so many passes, of which the quickest counts."""


def needs(run: Run, method: Method, optimizer: torch.optim.Optimizer) -> list[str]:
    """Describe the encoder, and what the run needs on disk and in memory, a row each."""
    encoder = without_lora(method.exported)
    exported = _bytes(encoder.state_dict().values())
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    moments = {"AdamW": 8}.get(type(optimizer).__name__, 4)
    weights = _bytes(method.state_dict().values())
    saved, keep = weights + moments * trained, run.config.keep
    free = free_bytes(run.folder)
    rows = [f"encoder    {run.config.encoder.name}, {_numbers(encoder):,} numbers"]
    if ratio := small_stem_ratio(run.config):
        rows.append(
            f"stem       small, up to {SMALL} pixels: {ratio:.0f} x the work of "
            "--encoder.stem standard"
        )
    rows += [
        f"memory     {size(weights + (4 + moments) * trained)} of weights, gradients and "
        "optimizer; activations besides",
        f"disk       {keep} checkpoints of {size(saved)} and an encoder of {size(exported)}; "
        f"{size(free)} are free",
    ]
    rows = [f"  {row}"[:80] for row in rows]
    if (most := (keep + 1) * saved + exported) > free:
        rows.append(f"warning: {run.folder} needs up to {size(most)}, and {size(free)} are free")
    return rows


class Forecast:
    """Say once, after the first steps, how long a run takes, and what would be wiser."""

    def __init__(self, run: Run, batches: Batches, *, batch: int, total: int, start: int) -> None:
        """Measure a run that begins after `start` steps; every process may call it."""
        self.run, self.batches = run, batches
        self.batch, self.total, self.start = batch, total, start
        self.began = 0.0
        self.waited: tuple[float, float] | None = None
        self.finished = not run.main

    def __call__(self, done: int) -> None:
        """Note that a step has ended, and print the forecast if this one makes it certain."""
        if self.finished:
            return
        now = time.monotonic()
        steps = done - self.start - 1
        if steps == 0:  # the first step, which may compile, is not measured
            wait_for(self.run.accelerator.device)
            self.began, self.waited = time.monotonic(), waited_for_cores()
            return
        spent = now - self.began
        enough = steps >= max(MEASURED_STEPS, self._read_ahead()) and spent >= MEASURED
        if enough or spent >= LONG_ENOUGH:
            self.finished = True
            wait_for(self.run.accelerator.device)
            self._print(done, (time.monotonic() - self.began) / steps)

    def _read_ahead(self) -> int:
        """Steps whose images may have been read before the first one: they come too fast."""
        workers = self.run.config.workers
        return AHEAD * (2 if workers is None else workers) + 1

    def _print(self, done: int, seconds: float) -> None:
        left = seconds * (self.total - done)
        device = self.run.accelerator.device
        pace = f"{seconds:.2g} s a step" if seconds < 100 else f"{duration(seconds)} a step"
        memory = f"{size(peak_memory(device))} of memory so far"
        where = device_name(device)
        self.run.print_line(f"about {rounded(left)} left on {where}: {pace}, {memory}")
        if busy := self._busy(device):
            self.run.print_line(f"hint: {busy}")
        if precision := quicker_precision(self.run.accelerator):
            self.run.print_line(f"hint: {precision}")
        if left > WORTH_A_HINT and device.type == "cpu" and (apple := unused_apple_gpu()):
            self.run.print_line(f"hint: {apple}")
        if left > WORTH_A_HINT and (hint := self._quicker(left, seconds)):
            self.run.print_line(f"hint: {hint}")

    def _busy(self, device: torch.device) -> str:
        threads, after = torch.get_num_threads(), waited_for_cores()
        if device.type != "cpu" or threads < 2 or self.waited is None or after is None:
            return ""
        computed, waited = (b - a for a, b in zip(self.waited, after, strict=True))
        if computed <= 0 or waited < 0:  # a thread ended meanwhile
            return ""
        fraction = waited / (computed + waited)
        if fraction < BUSY:
            return ""
        fewer = max(1, math.floor(threads * (1 - fraction)))
        load = os.getloadavg()[0]
        return (
            f"this machine is busy (load {load:.1f} on {cores()} cores; the {threads} threads of "
            f"this run wait {fraction:.0%} of their time): OMP_NUM_THREADS={fewer} would be faster"
        )

    def _quicker(self, left: float, seconds: float) -> str:
        """Name the preset that takes a fifth of the time or less; "" if there is none."""
        config = self.run.config
        if config.preset == "quick":
            return ""
        length = config.LENGTHS["quick"]
        per_epoch = self.batches.sampler.steps_per_epoch
        steps = length.epochs_of(per_epoch) * per_epoch
        doing("measuring the quick preset")
        try:
            step = self._quick_step(seconds)
        except (UserError, RuntimeError):  # such a network cannot be tried here
            return ""
        if steps * step * QUICKER > left:
            return ""
        return (
            f"--preset quick, which chooses a smaller encoder, smaller views and {steps:,} steps "
            f"where these are left open, takes about {rounded(steps * step)}"
        )

    def _quick_step(self, seconds: float) -> float:
        """Estimate the seconds of a step with the encoder and the views of `--preset quick`.

        Networks are measured. What a step does beside its network (reading, views, the loss) is
        taken to shrink with the area of the views.
        """
        config, device = self.run.config, self.run.accelerator.device
        if config.init or not isinstance(config, PretrainConfig):
            return seconds
        views = config.views
        chosen = preset_encoder("quick", device.type)
        small = min(views.size, largest_side("quick", device.type))
        if "vit" in config.encoder.name:  # methods that mask patches keep their network
            chosen = config.encoder
        own, quick = (
            seconds_of_image(encoder, side, views.channels, device)
            for encoder, side in ((config.encoder, views.size), (chosen, small))
        )
        images = views.views * self.batch / self.run.accelerator.num_processes
        rest = max(0.0, seconds - images * own)
        return float(images * quick + rest * (small / views.size) ** 2)


def quicker_precision(accelerator: Accelerator) -> str:
    """Name bfloat16 where a GPU that multiplies it several times faster computes in float32."""
    if accelerator.device.type != "cuda" or accelerator.mixed_precision != "no":
        return ""
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return ""
    return (
        "networks are computed in float32; `accelerate launch --mixed_precision bf16` before the "
        "command is about twice as fast on this GPU, and losses stay in float32"
    )


def rounded(seconds: float) -> str:
    """A time in words that says no more than a few steps can tell: "9 h", "2 h 10 min"."""
    unit = 3600 if seconds > 5 * 3600 else 300 if seconds > 3600 else 1
    return duration(round(seconds / unit) * unit)


def seconds_of_image(
    encoder: EncoderConfig, side: int, channels: int, device: torch.device
) -> float:
    """Measure the forward and backward pass of a new network, in seconds for one image.

    Random states are left as they were.

    Raises:
        UserError: the network does not take such images.
    """
    count = TRIED.get(device.type, 8)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = build(replace(encoder, compile=False), side, channels=channels).to(device)
        images = torch.rand(count, channels, side, side, device=device)
        least = math.inf
        for _ in range(PASSES):
            began = time.monotonic()
            torch.autograd.grad(network(images).sum(), list(network.parameters()))
            wait_for(device)
            least = min(least, time.monotonic() - began)  # others may use the machine meanwhile
    return least / count


def small_stem_ratio(config: TrainConfig) -> float:
    """Return how many times as much a small stem computes as the standard one.

    0 where the stem was chosen by the settings, or is the standard one, or hardly differs.
    """
    encoder, side = config.encoder, config.views.size
    if encoder.stem != "auto" or config.init or side > SMALL:
        return 0.0
    try:
        small, standard = (
            products_of(replace(encoder, stem=stem), side, config.views.channels)
            for stem in ("small", "standard")
        )
    except (UserError, RuntimeError, NotImplementedError):  # there is no such stem
        return 0.0
    ratio = small / max(1, standard)
    return ratio if ratio >= 2 else 0.0


def products_of(encoder: EncoderConfig, side: int, channels: int) -> int:
    """Count the multiplications of a forward pass of one image, without computing them."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = build(replace(encoder, compile=False), side, channels=channels).eval()
        images = torch.zeros(1, channels, side, side)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images)
    return int(counter.get_total_flops())


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has needed at most: of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)
    return 0


def size(count: int) -> str:
    """Bytes in words: "45 MB", "1.2 GB", "312 GB"."""
    if count < 1e9:
        return f"{count / 1e6:.2g} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB" if count < 1e11 else f"{count / 1e9:,.0f} GB"


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
