"""Fill in the settings that a command leaves to its images and to the encoder it starts from."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from selfsup.config import (
    DistilConfig,
    EncoderConfig,
    FinetuneConfig,
    LeJEPAConfig,
    PretrainConfig,
    TrainConfig,
)
from selfsup.config.presets import Preset, largest_side, preset_encoder
from selfsup.config.run import check_counts
from selfsup.config.views import size_for
from selfsup.core import distributed
from selfsup.core.disk import require_writable
from selfsup.core.errors import UserError, require
from selfsup.core.live import doing
from selfsup.core.progress import say
from selfsup.core.settings import checked
from selfsup.data.held_out import fraction_held_out, hold_out
from selfsup.data.open import training_source
from selfsup.data.samplers import PKSampler, Sampler, batch_shape
from selfsup.data.sources import Source, sample, why_first
from selfsup.data.subset import only_labelled
from selfsup.encoders.encoder import build_for
from selfsup.encoders.start import Start
from selfsup.training import checkpoint
from selfsup.training.first_rate import (
    LAYER_DECAY,
    LEJEPA,
    LEJEPA_WITHOUT,
    WITH_BATCH_NORMS,
    WITHOUT,
    first_rate,
    has_batch_norms,
    known_share,
)
from selfsup.training.optim import check_settings, peak_lr
from selfsup.training.pretrain import largest_batch, pretraining_sampler
from selfsup.training.same_work import OF_OLD_RUNS, check_folder, stored_settings
from selfsup.training.start import opened, recorded

C = TypeVar("C", bound=TrainConfig)
F = TypeVar("F", bound=FinetuneConfig)
P = TypeVar("P", bound=PretrainConfig)
BATCH = 256
"""Images of a pretraining batch, where there are so many."""
SAMPLED = 32
"""Images whose size is measured, evenly spread."""
OF_INIT = {"size": 0, "mean": (), "std": (), "interpolation": "", "crop": 0.0, "squash": None}
"""Settings of views that come with the weights of --init, and their values where left open."""


def fill_in(
    config: C,
    *,
    encoder: EncoderConfig | None = None,
) -> C:
    """Replace the settings that are left open, and leave those that are given.

    A run that goes on takes what it began with. Else:

    preset: standard, or quick where a CPU would pretrain a network that nobody named; it decides on
        encoder, size of views and epochs, where these are left open.
    encoder: that of --init, or `encoder`; a resnet18 where the method can have any network.
    views: size, normalisation and evaluation crop of --init; else the size is the shorter side of
        the images, at most 96.
    epochs: by the steps of an epoch.
    batch: 256 images, or as many as one has without repeats; of fine-tuning 64 images, of 16
        classes or all of fewer.
    probe.held_out of fine-tuning: a tenth of 80 classes and more; these do not count for the rest.
    optim.lr of fine-tuning with AdamW: by how well the encoder knows the classes, `first_rate`; of
        LeJEPA: by whether the encoder has batch norms.
    optim.layer_decay of fine-tuning: 0.75 for weights of --init without batch norms.
    optim.settle of pretraining from --init: the warm-up.

    Raises:
        UserError: the optimiser's settings make no sense, the images cannot be opened, or a setting
            contradicts the encoder of --init.
    """
    check_counts(config)
    distributed.start()
    if config.out:
        distributed.on_main(lambda: _check_output(Path(config.out)))
    config = _as_begun(config) if _begun(config) else config
    device = distributed.start().device.type
    if not config.preset and not _begun(config):
        config = replace(config, preset=_preset(config, encoder, device))
    _check_optimizer(config)
    if config.init:
        doing(f"opening {config.init}")
    start = opened(config) if config.init else None
    if start is not None:
        config = _of_start(_of_init(config, start), start)
    elif not config.encoder.name:
        config = replace(config, encoder=_named(config, encoder, device))
    questions = (_batch_is_open, _rate_is_open, _validation_is_open, _length_is_open)
    if config.views.size and not any(is_open(config) for is_open in questions):
        return config
    doing("opening the images")
    source = training_source(config)
    if not config.views.size:
        size = size_for(shorter_sides(source, config), largest_side(config.preset, device))
        config = replace(config, views=replace(config.views, size=size))
    if isinstance(config, FinetuneConfig) and source.labels is not None:
        return _of_labelled(config, source, start)
    return _of_unlabelled(config, source, start) if isinstance(config, PretrainConfig) else config


def _preset(config: TrainConfig, encoder: EncoderConfig | None, device: str) -> Preset:
    free = encoder is None and not config.encoder.name and not config.init
    quick = device == "cpu" and free and isinstance(config, PretrainConfig)
    return "quick" if quick else "standard"


def _of_start(config: C, start: Start) -> C:
    """Choose how much of what the weights of --init know is kept, where that is left open."""
    if isinstance(config, PretrainConfig) and config.optim.settle is None:
        config = replace(config, optim=replace(config.optim, settle=config.optim.warmup))
    if isinstance(config, FinetuneConfig) and config.optim.layer_decay is None:
        layered = hasattr(start.encoder.model, "group_matcher")  # else timm knows no order
        decay = LAYER_DECAY if layered and not has_batch_norms(start.encoder) else 1.0
        config = replace(config, optim=replace(config.optim, layer_decay=decay))
    return config


def _of_labelled(config: F, source: Source, start: Start | None) -> F:
    """Choose held-out classes, the batch, the length and the rate of fine-tuning."""
    source = only_labelled(source)
    assert source.labels is not None
    fraction = fraction_held_out(source.labels, config.probe)
    config = replace(config, probe=replace(config.probe, held_out=fraction))
    trained, _ = hold_out(source, fraction=fraction, seed=config.seed)
    assert trained.labels is not None
    p, k = batch_shape(trained.labels, config.classes, config.images)
    config = _with_length(replace(config, classes=p, images=k), trained)
    if _rate_is_open(config):
        config = replace(config, optim=replace(config.optim, lr=_rate(config, trained, start)))
    return config


def _of_unlabelled(config: P, source: Source, start: Start | None) -> P:
    """Choose the batch, the length and the rate of pretraining."""
    if not config.batch:
        processes = distributed.world()[1]
        fits = min(BATCH, largest_batch(source, config)) // processes * processes
        config = replace(config, batch=max(processes, fits))
    config = _with_length(config, source)
    if _rate_is_open(config):
        rate = LEJEPA if _has_batch_norms(config, start) else LEJEPA_WITHOUT
        config = replace(config, optim=replace(config.optim, lr=rate))
    return config


def _named(config: TrainConfig, encoder: EncoderConfig | None, device: str) -> EncoderConfig:
    """Name the network, and choose its stem and arguments where they are left open."""
    given = config.encoder
    chosen = preset_encoder(config.preset, device) if encoder is None else encoder
    stem = chosen.stem if given.stem == "auto" else given.stem
    return replace(given, name=chosen.name, args=given.args or chosen.args, stem=stem)


def _with_length(config: C, source: Source) -> C:
    """Choose the epochs by the steps of one, if neither is given.

    Raises:
        UserError: the images are too few for a batch.
    """
    if not _length_is_open(config):
        return config
    length = config.LENGTHS[config.preset or "standard"]
    sampler: Sampler
    if isinstance(config, FinetuneConfig):
        assert source.labels is not None
        p, k = config.classes, config.images
        sampler = PKSampler(source.labels, p=p, k=k, seed=config.seed)
    else:
        assert isinstance(config, PretrainConfig)
        sampler = pretraining_sampler(source, config)
    return replace(config, epochs=length.epochs_of(sampler.steps_per_epoch))


def _check_output(folder: Path) -> None:
    """Check the run folder before the images are opened, which may take long."""
    check_folder(folder)
    require_writable(folder)


def _begun(config: TrainConfig) -> bool:
    """Whether the run in `config.out` has checkpoints; without --out nothing is run."""
    folder = Path(config.out)
    found = checkpoint.any_in(folder) and (folder / "config.yaml").is_file()
    return bool(config.out) and found


def _as_begun(config: C) -> C:
    """Take the settings that are left open from the run in `config.out`, which has checkpoints."""
    folder = Path(config.out)
    stored = checked(
        stored_settings(folder)[0],
        type(config),
        place=lambda path: f"{folder}/config.yaml: ",
        strict=False,
    )
    changes: dict[str, Any] = {}
    for name in ("preset", "epochs"):
        if getattr(config, name) in ("", None):
            changes[name] = stored.get(name, getattr(config, name))
    for name in ("batch", "classes", "images"):
        if getattr(config, name, None) == 0:
            changes[name] = stored.get(name, 0)
    if isinstance(config, FinetuneConfig) and config.probe.held_out is None:
        held_out = stored.get("probe", {}).get("held_out", OF_OLD_RUNS["probe.held_out"])
        changes["probe"] = replace(config.probe, held_out=held_out)
    fields: list[tuple[str, str, Any]] = [("encoder", "name", ""), ("optim", "lr", 0.0)]
    fields += [("optim", "layer_decay", None), ("optim", "settle", None)]
    fields.append(("views", "size", 0))
    if not config.encoder.name:  # the arguments came with the default network
        fields += [("encoder", "args", ""), ("encoder", "stem", "auto")]
    if recorded(config):  # these came with the weights of --init
        fields += [
            ("encoder", name, getattr(EncoderConfig(), name))
            for name in ("stem", "args", "pooling")
        ]
        fields += [("views", name, left_open) for name, left_open in OF_INIT.items()]
    if isinstance(getattr(config, "method", None), DistilConfig):  # whose defaults have changed
        of_today = DistilConfig()
        fields += [("method", name, getattr(of_today, name)) for name in ("width", "queue")]
    for section, name, left_open in fields:
        before = OF_OLD_RUNS.get(f"{section}.{name}", left_open)
        value = stored.get(section, {}).get(name, before)
        given = changes.get(section, getattr(config, section))
        if getattr(given, name) == left_open and value != left_open:
            changes[section] = replace(given, **{name: value})
    return replace(config, **changes)


def _batch_is_open(config: TrainConfig) -> bool:
    if isinstance(config, FinetuneConfig):
        return not (config.classes and config.images)
    return isinstance(config, PretrainConfig) and not config.batch


def _length_is_open(config: TrainConfig) -> bool:
    return config.epochs is None and config.steps is None


def _rate_follows(config: TrainConfig) -> bool:
    """Whether AdamW's rate follows from the encoder where none is given."""
    of_lejepa = isinstance(getattr(config, "method", None), LeJEPAConfig)
    return of_lejepa or isinstance(config, FinetuneConfig)


def _rate_is_open(config: TrainConfig) -> bool:
    return _rate_follows(config) and config.optim.name == "adamw" and not config.optim.lr


def _validation_is_open(config: TrainConfig) -> bool:
    return isinstance(config, FinetuneConfig) and config.probe.held_out is None


def _check_optimizer(config: TrainConfig) -> None:
    """Refuse settings of the optimiser before anything is opened.

    Raises:
        UserError: one makes no sense, or a rate is left open that nothing fills in.
    """
    optim = config.optim
    require(
        optim.lr != 0 or optim.name == "adamw" or not _rate_follows(config),
        f"--optim.name {optim.name} needs --optim.lr here: only AdamW's rate follows from the "
        f"encoder and the images. Give a rate, or leave --optim.name {optim.name} out",
    )
    check_settings(replace(optim, lr=1.0) if _rate_is_open(config) else optim)


def _has_batch_norms(config: TrainConfig, start: Start | None) -> bool:
    if start is not None:
        return has_batch_norms(start.encoder)
    with torch.random.fork_rng(devices=[]):
        return has_batch_norms(build_for(config.encoder, config.views))


def _rate(config: FinetuneConfig, source: Source, start: Start | None) -> float:
    """Return the rate for 256 images, by the run's rule.

    The peak for the run's batch is that of AdamW's own rule, the square root, whichever is given.
    """
    rates = WITH_BATCH_NORMS if _has_batch_norms(config, start) else WITHOUT
    rate = rates.random
    if start is not None:
        doing("measuring what the encoder knows of these classes")
        rate = first_rate(known_share(start.encoder, source, config), rates)
    batch = config.classes * config.images
    own, given = (
        peak_lr(replace(config.optim, lr=1.0, rule=rule), batch)
        for rule in ("auto", config.optim.rule)
    )
    return rate * own / given


def shorter_sides(source: Source, config: TrainConfig) -> list[int]:
    """Measure the shorter sides of a sample of the images, in pixels.

    Raises:
        UserError: none of the sample can be read.
    """
    sides = [min(image.shape[:2]) for image in sample(source, SAMPLED)]
    if not sides:
        named = {"--data": config.data, "--split": config.split}
        flags = [word for pair in named.items() if pair[1] for word in pair]
        raise UserError(
            f"no image of a sample can be read; {why_first(source)}. "
            f"`{shlex.join(['selfsup', 'audit', *flags])}` lists why"
        )
    return sides


def _of_init(config: C, start: Start) -> C:
    """Take the encoder's settings and the evaluation view from the weights of --init.

    What is given stays.

    Raises:
        UserError: a setting that was given contradicts them.
    """
    views, theirs = config.views, start.views
    for name in ("mean", "std"):
        given, trained = getattr(views, name), getattr(theirs, name)
        require(
            given in ((), trained) or start.match is not None,  # of a file it is the usual one
            f"--views.{name} {given}: the encoder of --init {config.init} was trained with "
            f"{trained}. Leave the flag out",
        )
    if start.match is not None:
        say(f"{config.init}: {start.match}")
    fitted = {
        name: getattr(theirs if getattr(views, name) == left_open else views, name)
        for name, left_open in OF_INIT.items()
    }
    fitted["size"] = theirs.size  # the given one, or the next of whole patches
    return replace(config, encoder=start.config, views=replace(views, **fitted))
