"""What an encoder knows of some images: `known.py IMAGES MICRO_BATCH`, on each process."""

import sys
from typing import Any

import torch

from recipes.finetune_triplet import Config
from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.core import distributed
from selfsup.data.open import training_source
from selfsup.encoders.encoder import Encoder, build
from selfsup.training.first_rate import known_share

DROPS = EncoderConfig(name="test_vit", args="{proj_drop_rate: 0.3, drop_path_rate: 0.3}")


def begun(data: str, encoder: EncoderConfig, micro_batch: int | None) -> tuple[Encoder, Config]:
    """An encoder and the settings of a run from it, 24 images in a batch."""
    torch.manual_seed(0)
    views = ViewsConfig(views=1, size=16)
    settings: dict[str, Any] = {"classes": 6, "images": 4, "micro_batch": micro_batch}
    return build(encoder, 16), Config(data=data, out="x", views=views, **settings)


if __name__ == "__main__":
    distributed.start()
    encoder, config = begun(sys.argv[1], DROPS, int(sys.argv[2]) or None)
    sys.stdout.write(f"{known_share(encoder, training_source(config), config)!r}\n")
    sys.stdout.flush()
    distributed.finish()
