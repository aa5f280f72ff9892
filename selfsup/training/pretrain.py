"""Pretraining: unlabelled images, views and a method put together."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from selfsup.augment.advice import advice
from selfsup.augment.check import check
from selfsup.augment.draws import Change, draw
from selfsup.config import PretrainConfig, TrainConfig, ViewsConfig
from selfsup.core.distributed import wait, world
from selfsup.core.errors import DivergedError, UserError, require
from selfsup.core.live import doing
from selfsup.core.numerics import all_finite
from selfsup.core.words import counted
from selfsup.data.audit import not_masked, read_audit, training_units
from selfsup.data.loader import Batches
from selfsup.data.mixture import Mixture
from selfsup.data.open import training_source
from selfsup.data.samplers import Sampler, ShuffleSampler, UnitSampler, WeightedSampler
from selfsup.data.sources import Source, sample
from selfsup.encoders.encoder import copy_export
from selfsup.encoders.encoder import export as export_encoder
from selfsup.encoders.lora import without_lora
from selfsup.encoders.model_card import refresh_card
from selfsup.methods.method import Method
from selfsup.training import checkpoint
from selfsup.training.loop import train_steps
from selfsup.training.run import Run

ADVISED_ON = 128
"""Images on which it is measured whether views fit."""


def pretrain_steps(
    run: Run, method: Method, config: PretrainConfig, changes: Sequence[Change] = ()
) -> Iterator[int]:
    """Train on the images of `config.data`; yield the number of finished steps after each.

    An ordinary loop around it can do anything on the way, such as a probe and an early stop:

        config = fill_in(config)  # the encoder, the size of views and the batch, if left open
        run = Run(config)  # first: it seeds the weights that are made next
        method = SimCLR(starting_encoder(config), config.method)
        probe = KNNProbe(run, config.probe, config.views)
        best = 0.0
        for step in pretrain_steps(run, method, config):
            accuracy = probe(step, method.exported)  # None between two probes
            if accuracy is not None and accuracy < best - 0.02:
                break
            best = max(best, accuracy or 0.0)
        export(run, method, config.views)

    `changes` are custom augmentations, applied after all others (see augment/README.md).

    Raises:
        UserError: the images, the batch or the views do not fit.
    """
    doing("opening the images")
    source = training_source(config)
    sampler = pretraining_sampler(source, config)
    total = length(config, sampler)
    announce(run, source, config.batch, total)
    if config.mask_duplicates and (note := not_masked(read_audit(Path(config.audit)))):
        run.print_line(f"warning: {note}")
    batches = local_batches(source, sampler, config.views, config.seed, changes=changes)
    steps = train_steps(
        run, method, batches, config=config, batch=config.batch, total=total, changes=changes
    )
    next(steps)  # where the run begins, before its first step
    yield from steps


def pretraining_sampler(source: Source, config: PretrainConfig) -> Sampler:
    """Sample every image once an epoch, or by weight, without those that an audit calls bad.

    Raises:
        UserError: the batch is too large, or the audit is of other images.
    """
    groups = _units(source, config)
    sizes, weights = _sizes_and_weights(source, groups)
    sampler: ShuffleSampler | WeightedSampler
    if weights is not None:
        sampler = WeightedSampler(sizes, weights, batch=config.batch, seed=config.seed)
    else:
        sampler = ShuffleSampler(sum(sizes), batch=config.batch, seed=config.seed)
    return sampler if groups is None else UnitSampler(sampler, groups, seed=config.seed)


def largest_batch(source: Source, config: PretrainConfig) -> int:
    """Return how many images a batch can have so that none is twice in it.

    Of each source two images are left over, since counts are rounded at both ends of a batch.
    Example: of 20 images of weight 1 beside 320 of weight 1, 36.
    """
    sizes, weights = _sizes_and_weights(source, _units(source, config))
    if weights is None:
        return sum(sizes)
    pairs = zip(sizes, weights, strict=True)
    return int(min((size - 2) * sum(weights) / weight for size, weight in pairs if weight > 0))


def _units(source: Source, config: PretrainConfig) -> list[list[int]] | None:
    """Positions of the images that an audit leaves, duplicates together; None without an audit."""
    require(
        bool(config.audit) or not config.mask_duplicates,
        "--mask-duplicates needs --audit FILE, which selfsup audit writes",
    )
    if not config.audit:
        return None
    audit = read_audit(Path(config.audit))
    return training_units(source, audit, merge_duplicates=config.mask_duplicates)


def _sizes_and_weights(
    source: Source, groups: list[list[int]] | None
) -> tuple[list[int], Sequence[float] | None]:
    """Count the units of each source of a weighted mixture, or of all images."""
    if isinstance(source, Mixture) and source.weights is not None:
        counted = (
            source.sizes if groups is None else source.count_per_source([g[0] for g in groups])
        )
        return list(counted), source.weights
    return [len(source) if groups is None else len(groups)], None


def local_batches(
    source: Source,
    sampler: Sampler,
    views: ViewsConfig,
    seed: int,
    *,
    changes: Sequence[Change] = (),
    whole: bool = False,
) -> Batches:
    """Return this process's rows of each step's batch, or the `whole` batch.

    Raises:
        UserError: there are fewer views than one, or of no size, or they do not fit the channels.
    """
    check(views)
    colours = {"saturation": views.saturation, "hue": views.hue, "grey": views.grey}
    coloured = [f"--views.{name} 0" for name, amount in colours.items() if amount]
    require(
        views.channels == 3 or not coloured,
        f"images of {views.channels} channels have no colours: {', '.join(coloured)}",
    )
    require(
        len(views.normalization[1]) == views.channels,
        f"--views.mean has {views.channels} channels and --views.std {len(views.normalization[1])}",
    )
    require(views.views > 0, f"--views.views must be above 0, not {views.views}")
    require(views.local.views >= 0, f"--views.local.views must be 0 or more: {views.local.views}")
    require(min(views.sizes) > 0, f"views must have a size above 0: {views.sizes}")
    draws = partial(draw, views, seed=seed, changes=changes)
    return Batches(source, sampler, views, draw=draws, world=(0, 1) if whole else world())


def length(config: TrainConfig, sampler: Sampler) -> int:
    """Return the steps of the run.

    Raises:
        UserError: there would be none.
    """
    if config.steps is not None:
        require(config.steps > 0, f"--steps must be above 0, not {config.steps}")
        return config.steps
    if config.epochs is None:
        raise UserError("neither --epochs nor --steps is given: fill_in(config) sets epochs")
    require(config.epochs > 0, f"--epochs must be above 0, not {config.epochs}")
    return config.epochs * sampler.steps_per_epoch


def announce(run: Run, source: Source, batch: int, total: int) -> None:
    """Print one line on what is about to happen, and what views do not fit the images."""
    steps = counted(total, "step")
    run.print_line(f"{len(source):,} images, {steps} of {batch}, {describe(run)} -> {run.folder}")
    run.print_line(f"  preset     {describe_settings(run.config)}"[:80])
    if run.config.preset == "quick" and run.accelerator.device.type == "cpu":
        run.print_line(
            "             for a quick look; --preset standard takes longer and learns more"
        )
    if run.main and not checkpoint.any_in(run.folder):
        doing("looking at a sample of the images")
        views, seed = run.config.views, run.config.seed
        for sentence in advice(sample(source, ADVISED_ON), views, seed=seed):
            run.print_line(f"hint: {sentence}")


def describe_settings(config: TrainConfig) -> str:
    """Describe what a preset decides on, as it is in this run."""
    number, unit = (config.epochs or 0, "epoch") if config.steps is None else (config.steps, "step")
    length, views = counted(number, unit), config.views
    sizes = " and ".join(f"{group.views} of {group.size}" for group in views.by_size())
    return f"{config.preset or 'as begun'}: {length}, {config.encoder.name}, views {sizes} pixels"


def describe(run: Run) -> str:
    """Describe device, processes and precision."""
    a = run.accelerator
    precision = "" if a.mixed_precision == "no" else f" in {a.mixed_precision}"
    return f"{a.num_processes} x {a.device.type}{precision}"


def export(run: Run, method: Method, views: ViewsConfig, *, instead: Path | None = None) -> None:
    """Write the method's encoder into the run folder, which completes the run.

    `instead` is a folder with an export, of which a copy is written instead.

    Raises:
        DivergedError: weights are not finite, as a step before the end of a run may leave them.
    """
    run.finish_saving()  # where the caller has left the loop early
    run.stop_if_requested("before the encoder is written; the checkpoints are whole")
    weights = [x for x in method.exported.state_dict().values() if x.is_floating_point()]
    if instead is None and not all_finite(weights):
        raise DivergedError(
            "weights are not finite, so that no encoder was written; the checkpoints are those of "
            "steps before. Try a lower --optim.lr or a longer --optim.warmup"
        )
    doing("writing the encoder")
    folder = run.folder / "encoder"
    if run.main and instead is not None:
        copy_export(instead, folder)
    elif run.main:
        export_encoder(without_lora(method.exported), folder, views)
    if run.main:
        refresh_card(run.folder)
    wait()  # every process may load it now
    run.print_line(f"encoder in {folder}")
    if run.config.track:
        run.accelerator.end_training()
