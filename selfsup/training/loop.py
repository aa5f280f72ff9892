"""The training loop, written once: a generator that yields after each step."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from selfsup.augment.draws import Change
from selfsup.config import TrainConfig
from selfsup.core.distributed import Vote
from selfsup.core.errors import UserError, require
from selfsup.core.pulse import CALLER, DATA, SAVING, STEP, Pulse
from selfsup.core.stopping import deferred, requested
from selfsup.data.loader import Batches, read_ahead
from selfsup.methods.method import Method
from selfsup.training.adapt import adapt, frozen, rate_factors
from selfsup.training.optim import clipping, optimizer, plan, schedule
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

    Yields the number of finished steps after each step. What the caller does in between (evaluate,
    draw, stop) cannot change the steps that follow: each step seeds itself.

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
    device = run.accelerator.device
    _check(run, method, config, batch)
    if config.sync_bn:
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    adapt(method, config)
    optim = optimizer(
        method.to(device),
        config.optim,
        loss_parameters=method.loss_parameters(),
        factor=method.loss_lr,
        decays=method.loss_decays,
        constant_lr=method.constant_lr_parameters(),
        rates=rate_factors(method, config.optim, config.encoder.name),
    )
    run.begin(batches.source, total=total)
    start = run.resume(method, optim)
    run.at(start, total)
    if start >= total:
        run.print_line(f"{run.folder} has done all its {total} steps; nothing is left to train")
        return
    stepper = Stepper(
        run.accelerator,
        method,
        optim,
        views=config.views,
        micro_batch=_local_micro_batch(config, batch, run.accelerator.num_processes),
        seed=config.seed,
        total=total,
        clip=clipping(config.optim),
        changes=changes,
        recomputes=config.checkpoint_activations,
    )
    run.print_line(
        plan(optim, config.optim, batch=batch, total=total, negatives=method.negatives(batch))
    )
    if line := frozen(method):
        run.print_line(line)
    reader = read_ahead(batches, range(start, total), workers=config.workers)
    vote, pulse = Vote(), Pulse(start)
    with run.watch(total, start) as progress, deferred(), contextlib.closing(pulse):
        watch = Watch(run, method, batches.source, batch=batch, start=start)
        for step in range(start, total):
            pulse.at(step, DATA)
            with watch.waiting():
                local = next(reader)
            pulse.at(step, STEP)
            watch.record_bad(local)
            if step == start:
                stepper.warm_up_buckets(local)
            lr = schedule(optim, config.optim, batch=batch, step=step, total=total)
            loss = stepper(local)
            done = step + 1
            progress.step(done)
            if done % config.log_every == 0 or done in (1, total):
                watch.report(done, loss.item(), lr, stepper, stepper.info(local))
            method.after_step(stepper.embeddings, stepper.labels, stepper.info(local))
            run.at(done, total)
            halt = vote(requested())
            if done % config.save_every == 0 or done == total or halt:
                pulse.at(done, SAVING)
                watch.require_few_bad()  # a checkpoint must not be trained on stand-ins
                run.save(done, method, optim)
            pulse.at(done, CALLER)
            yield done
            if halt:
                run.stop(done, halt)
        if halt := vote.close():
            run.stop(total, halt)


def _check(run: Run, method: Method, config: TrainConfig, batch: int) -> None:
    for name in ("log_every", "save_every", "keep"):
        value = getattr(config, name)
        require(value > 0, f"--{name.replace('_', '-')} must be above 0, not {value}")
    workers, bad = config.workers, config.max_bad
    require(workers is None or workers >= 0, f"--workers must be 0 or more, not {workers}")
    require(0 <= bad <= 1, f"--max-bad is a fraction of the images from 0 to 1, not {bad}")
    processes = run.accelerator.num_processes
    if batch % processes:
        raise UserError(
            f"a batch of {batch} images does not divide among {processes} processes; "
            f"the next that does is {-(-batch // processes) * processes}"
        )
    size = config.micro_batch or batch // processes
    if size < 2 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in method.modules()):
        raise UserError(
            "batch norms need 2 images or more at a time; raise --batch or --micro-batch"
        )
    if config.sync_bn and run.accelerator.device.type != "cuda":
        raise UserError("--sync-bn needs GPUs; on a CPU use a norm without batch statistics")


def _local_micro_batch(config: TrainConfig, batch: int, processes: int) -> int | None:
    images = batch // processes
    if config.micro_batch is not None and (config.micro_batch < 1 or images % config.micro_batch):
        raise UserError(
            f"--micro-batch {config.micro_batch} does not divide the {images} images of a process"
        )
    return config.micro_batch
