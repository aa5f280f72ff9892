"""The training loop, written once: a generator that yields after each step."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from selfsup.augment.draws import Change
from selfsup.config import FinetuneConfig, TrainConfig
from selfsup.core.distributed import Vote
from selfsup.core.errors import UserError, require
from selfsup.core.live import doing
from selfsup.core.pulse import CALLER, DATA, SAVING, STEP, Pulse
from selfsup.core.stopping import deferred, requested
from selfsup.data.loader import Batches, read_ahead
from selfsup.methods.method import Method
from selfsup.training.adapt import adapt, frozen, rate_factors, synchronized
from selfsup.training.failed_step import explained
from selfsup.training.forecast import Forecast, needs
from selfsup.training.optim import clipping, optimizer, plan, schedule, settling_steps
from selfsup.training.run import Run
from selfsup.training.step import Stepper
from selfsup.training.watch import Watch


def train_steps(
    run: Run,
    method: Method,
    batches: Batches,
    *,
    config: TrainConfig,
    batch: int,
    total: int,
    changes: Sequence[Change] = (),
) -> Iterator[int]:
    """Train `method` in place, from the run's newest checkpoint if it has one.

    Yields the number of finished steps: once before the first step of this call, when weights are
    those of --init or of the checkpoint, and after each step. What the caller does in between
    (evaluate, draw, stop) cannot change the steps that follow: each step seeds itself.

    Args:
        run: where to log, save and resume.
        method: what to train.
        batches: this process's rows of each step's batch.
        config: of the run.
        batch: images of the global batch, for the learning rate and the log.
        total: length of the run in steps.
        changes: custom augmentations, whose draws the batches have.

    Raises:
        UserError: sizes do not divide, the loss is not finite, too many images are bad.
    """
    _check(run, method, config, batch)
    if config.sync_bn:
        method = synchronized(method)
    adapt(method, config)
    optim = _optimizer(method.to(run.accelerator.device), config)
    run.begin(batches.source, total=total)
    start = run.resume(method, optim)
    run.at(start, total)
    if start >= total:
        run.print_line(f"{run.folder} has done all its {total} steps; nothing is left to train")
        yield start
        return
    stepper = Stepper(
        run.accelerator,
        method,
        optim,
        views=config.views,
        micro_batch=config.micro_batch,
        seed=config.seed,
        total=total,
        clip=clipping(config.optim),
        changes=changes,
        recomputes=config.checkpoint_activations,
        settle=settling_steps(config.optim, total),
        fused=config.encoder.compile and run.accelerator.device.type != "cpu",
    )
    _print_plan(run, method, optim, config=config, batch=batch, total=total)
    yield from _take_steps(run, stepper, batches, optim, config=config, batch=batch, start=start)


def _print_plan(
    run: Run,
    method: Method,
    optim: torch.optim.Optimizer,
    *,
    config: TrainConfig,
    batch: int,
    total: int,
) -> None:
    """Say what the optimiser does to which weights, and what the run needs."""
    ranks = isinstance(config, FinetuneConfig)  # whose negatives a table of the batch has
    negatives = None if ranks else method.negatives(batch)
    run.print_line(plan(optim, config.optim, batch=batch, total=total, negatives=negatives))
    if line := frozen(method):
        run.print_line(line)
    for line in needs(run, method, optim):
        run.print_line(line)


def _take_steps(
    run: Run,
    stepper: Stepper,
    batches: Batches,
    optim: torch.optim.Optimizer,
    *,
    config: TrainConfig,
    batch: int,
    start: int,
) -> Iterator[int]:
    """Take the steps from `start` to the end, and yield as `train_steps` does."""
    method, total = stepper.method, stepper.total
    save_every = config.save_every or min(500, max(20, total // 10))
    doing("starting to read ahead")
    reader = read_ahead(batches, range(start, total), workers=config.workers)
    vote, pulse = Vote(), Pulse(start)
    with (
        run.watch(total, start) as progress,
        deferred(),
        contextlib.closing(pulse),
        contextlib.closing(run.saving),  # whatever ends the loop
    ):
        progress.activity = lambda: pulse.doing
        pulse.at(start, CALLER)
        yield start
        forecast = Forecast(run, batches, batch=batch, total=total, start=start)
        watch = Watch(run, method, batches.source, batch=batch, start=start)
        for step in range(start, total):
            pulse.at(step, DATA)
            with watch.waiting():
                local = next(reader)
            pulse.at(step, STEP)
            watch.record_bad(local)
            lr = schedule(optim, config.optim, batch=batch, step=step, total=total)
            done = step + 1
            reports = done % config.log_every == 0 or done in (1, total)
            with explained(run, stepper, batches, local):
                run.saving.check()
                if step == start:
                    stepper.warm_up_buckets(local)
                loss = stepper(local)
                if reports:
                    stepper.require_finite()
            progress.step(done)
            forecast(done)
            if reports:
                watch.report(done, loss.item(), lr, stepper, stepper.info(local))
            method.after_step(stepper.embeddings, stepper.labels, stepper.info(local))
            run.at(done, total)
            halt = vote(requested())
            if done % save_every == 0 or done == total or halt:
                pulse.at(done, SAVING)
                with explained(run, stepper, batches, local):
                    stepper.require_finite()
                watch.require_few_bad()  # a checkpoint must not be trained on stand-ins
                run.save(done, method, optim)
            if done == total or halt:
                run.finish_saving()
            pulse.at(done, CALLER)
            yield done
            if halt:
                run.stop(f"after step {done}, whose checkpoint is written", halt)
        vote.close()
        run.stop_if_requested(f"after step {total}, whose checkpoint is written")


def _optimizer(method: Method, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser of a method, whose parameters are on their device."""
    return optimizer(
        method,
        config.optim,
        loss_parameters=method.loss_parameters(),
        factor=method.loss_lr,
        decays=method.loss_decays,
        constant_lr=method.constant_lr_parameters(),
        rates=rate_factors(method, config.optim, config.encoder.name),
        settled={id(p) for p in method.encoder.parameters()},
    )


def _check(run: Run, method: Method, config: TrainConfig, batch: int) -> None:
    for name in ("log_every", "save_every", "keep"):
        value = getattr(config, name)
        flag = f"--{name.replace('_', '-')}"
        require(value is None or value > 0, f"{flag} must be above 0, not {value}")
    workers, bad = config.workers, config.max_bad
    require(workers is None or workers >= 0, f"--workers must be 0 or more, not {workers}")
    require(0 <= bad <= 1, f"--max-bad is a fraction of the images from 0 to 1, not {bad}")
    check_batch(method, config, batch, run.accelerator.num_processes)
    if config.sync_bn and run.accelerator.device.type != "cuda":
        raise UserError("--sync-bn needs GPUs; on a CPU use a norm without batch statistics")


def check_batch(network: nn.Module, config: TrainConfig, batch: int, processes: int) -> None:
    """Refuse a batch that does not divide among processes and micro-batches.

    Raises:
        UserError: it does not, or batch norms would see one image at a time.
    """
    if batch % processes:
        raise UserError(
            f"a batch of {batch} images does not divide among {processes} processes; "
            f"the next that does is {-(-batch // processes) * processes}"
        )
    images, size = batch // processes, config.micro_batch
    require(
        size is None or (size > 0 and images % size == 0),
        f"--micro-batch {size} does not divide the {images} images of a process",
    )
    norms = (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    require(
        (size or images) > 1 or not any(norms),
        "batch norms need 2 images or more at a time; raise --batch or --micro-batch",
    )
