"""The encoder that a run starts from: new, or with the weights of --init."""

from selfsup.config import TrainConfig
from selfsup.encoders.encoder import Encoder, build_for
from selfsup.encoders.sizes import check_sizes
from selfsup.encoders.start import Start, open_start


def starting_encoder(config: TrainConfig) -> Encoder:
    """Open the encoder of `config.init`, or make a new one. Settings are filled in, see `fill_in`.

    Raises:
        UserError: there is no encoder, a setting contradicts it, or it does not take such views.
    """
    if not config.init:
        return build_for(config.encoder, config.views)
    encoder = opened(config).encoder
    sizes, channels = config.views.sizes, config.views.channels
    check_sizes(encoder.model, config.encoder.name, *sizes, channels=channels)
    return encoder


def opened(config: TrainConfig) -> Start:
    """Open the weights of `config.init` at the size of the views and with their channels."""
    views = config.views
    channels = len(views.mean)  # 0 where the weights decide
    return open_start(config, config.encoder, size=views.size, channels=channels)
