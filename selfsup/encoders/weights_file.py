"""A file of weights: whose it is, of which network, and the network with its tensors."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import timm
import torch
from torch import nn

from selfsup.config import EncoderConfig, Format, InitConfig
from selfsup.core.errors import UserError, require
from selfsup.encoders.architectures import architecture_of
from selfsup.encoders.encoder import Encoder, build, parse_arguments
from selfsup.encoders.fit_weights import LEAST_MATCHED, Fit, Match, fit_tensors, load_fitting
from selfsup.encoders.published import base_name, timm_settings
from selfsup.encoders.sizes import fitting_size
from selfsup.encoders.third_party import NamedTensors, detect_stem, select_tensors
from selfsup.encoders.weights import read_file

FORMATS: tuple[Format, ...] = tuple(name for name in get_args(Format) if name)


class FromFile(NamedTuple):
    """A network with the weights of a file."""

    encoder: Encoder
    config: EncoderConfig
    """Builds the same network with random weights."""
    name: str
    """The timm model; with a tag, whose preprocessing is the weights' own."""
    size: int
    """Side of the images in pixels: the one that was asked for, or the next that fits."""
    match: Match


def open_file(init: InitConfig, encoder: EncoderConfig, size: int, channels: int) -> FromFile:
    """Build the network that a file's weights are of, and load them.

    Args:
        init: the file, and what is known of it.
        encoder: the settings that were given; an empty name is found by the file's tensors.
        size: of the images in pixels; 0 for that of the network.
        channels: of the images.

    Raises:
        UserError: the file cannot be read, its network is not known or has other tensors, or two
            projects' readings of it differ.
    """
    file = Path(init.init)
    content = read_file(file)
    readings = _readings(content, file, init)
    name = encoder.name or next(filter(None, map(architecture_of, readings.values())), "")
    require(
        bool(name),
        f"the tensors of {file} do not say which network they are of: give its timm model with "
        "--encoder.name (--model of evaluations)",
    )
    base = base_name(name)
    require(timm.is_model(base), f"timm has no model {base!r}")
    config = replace(encoder, name=base)
    if encoder.stem == "auto":
        stems = {detect_stem(named) for named in readings.values() if "conv1.weight" in named}
        config = replace(config, stem="small" if stems == {"small"} else "standard")
    patch = int(parse_arguments(encoder.args).get("patch_size", 0))
    size = fitting_size(base, size or int(timm_settings(name)["input_size"][-1]), patch)
    network = build(replace(config, channels_last=False), size, channels=channels)
    format, fit = _detect(
        readings, network.model, file, other_patches=patch > 0, partial=init.partial
    )
    match = load_fitting(network.model, fit, file, format, partial=init.partial)
    return FromFile(network, config, name, size, match)


def _readings(content: Any, file: Path, init: InitConfig) -> dict[Format, NamedTensors]:
    """Read the file's tensors as each project would have written them.

    Raises:
        UserError: none of them could have, or the one that is given did not.
    """
    readings: dict[Format, NamedTensors] = {}
    problem: UserError | None = None
    for format in [init.format] if init.format else FORMATS:
        try:
            readings[format] = select_tensors(
                content, file, format, teacher=init.moving_average, marked=not init.format
            )
        except UserError as error:
            problem = error
    if not readings and not init.format and init.moving_average:
        raise UserError(f"{file} has no moving average in it: leave --moving-average out")
    if not readings and problem is not None:
        raise problem if init.format else UserError(f"{file} holds no named tensors")
    return readings


def _detect(
    readings: dict[Format, NamedTensors],
    model: nn.Module,
    file: Path,
    *,
    other_patches: bool,
    partial: bool,
) -> tuple[Format, Fit]:
    """Find the project whose names fit the network, and how they do.

    Raises:
        UserError: two fit, and mean different networks.
    """
    fits: dict[Format, Fit] = {}
    problem: UserError | None = None
    for format, named in readings.items():
        if format == "authors" and any(fit.fraction >= LEAST_MATCHED for fit in fits.values()):
            break  # timm's converters take timm's own names too
        try:
            fits[format] = fit_tensors(model, named, file, format, other_patches=other_patches)
        except UserError as error:
            problem = error
    if not fits:
        assert problem is not None
        raise problem
    best = max(fits, key=lambda format: (fits[format].fraction, -len(fits[format].match.unused)))
    least = 0.0 if partial else LEAST_MATCHED  # below, it is refused whosever it is
    for format, fit in fits.items():
        equal = fit.fraction == fits[best].fraction >= least
        if equal and not _same(fit, fits[best]):
            raise UserError(
                f"{file} can be read as {best}'s and as {format}'s, and these differ: give "
                f"--format {best} or {format}"
            )
    return best, fits[best]


def _same(a: Fit, b: Fit) -> bool:
    """Whether two readings of a file make one network."""
    if a.settings != b.settings or a.matching.keys() != b.matching.keys():
        return False
    # weights with nan, which are refused later, are not equal to themselves
    pairs = (
        (value.nan_to_num(), b.matching[key].nan_to_num()) for key, value in a.matching.items()
    )
    return all(torch.equal(*pair) for pair in pairs)
