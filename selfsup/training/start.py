"""The encoder that a run starts from: new, or with the weights of --init.

A run with checkpoints has all its weights in them. It never reads --init again, which may have
moved: the network itself is described in `start/` of its folder.
"""

from pathlib import Path

from selfsup.config import TrainConfig
from selfsup.core import distributed
from selfsup.encoders.encoder import (
    Encoder,
    as_configured,
    build_for,
    export_architecture,
    load,
)
from selfsup.encoders.sizes import check_sizes
from selfsup.encoders.start import Start, open_start
from selfsup.training import checkpoint


def starting_encoder(config: TrainConfig) -> Encoder:
    """Open the encoder of `config.init`, or make a new one. Settings are filled in, see `fill_in`.

    In a run's folder the network is recorded. Where the run goes on, weights are those of its
    checkpoints, and until they are loaded random.

    Raises:
        UserError: there is no encoder, a setting contradicts it, or it does not take such views.
    """
    if not config.init:
        return build_for(config.encoder, config.views)
    encoder = opened(config).encoder
    sizes, channels = config.views.sizes, config.views.channels
    check_sizes(encoder.model, config.encoder.name, *sizes, channels=channels)
    folder = Path(config.out)
    new = bool(config.out) and (folder / "config.yaml").is_file() and recorded(config) is None
    if new and distributed.is_main():
        export_architecture(encoder, folder / "start", config.views)
    return encoder


def opened(config: TrainConfig) -> Start:
    """Open the weights of `config.init` at the size of the views and with their channels."""
    views = config.views
    if folder := recorded(config):
        encoder, own = load(folder, blank=True, size=views.size)
        return Start(as_configured(encoder.model, config.encoder), config.encoder, own)
    channels = len(views.mean)  # 0 where the weights decide
    return open_start(config, config.encoder, size=views.size, channels=channels)


def recorded(config: TrainConfig) -> Path | None:
    """Return where a run that goes on has recorded its network; None of others.

    Runs of older versions have no such record, and open --init again.
    """
    folder = Path(config.out)
    found = checkpoint.any_in(folder) and (folder / "start" / "config.json").is_file()
    return folder / "start" if config.out and found else None
