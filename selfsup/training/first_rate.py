"""The rate of fine-tuning where none is given: the more is known already, the smaller.

A study over ten sets of images and two starts (recipes/README.md) has one pattern: where the
encoder already tells the classes of training apart, a high rate learns them by heart and loses what
distinguishes other classes; where it does not, a low rate learns next to nothing. So the share of
images whose nearest neighbour is of their class is measured before the first step.
"""

from typing import NamedTuple

import torch
from torch import nn

from selfsup.augment.apply import apply
from selfsup.config import FinetuneConfig
from selfsup.core import distributed
from selfsup.core.numerics import at_least_float32
from selfsup.core.seeds import seed_for
from selfsup.data.loader import Batch
from selfsup.data.samplers import PKSampler
from selfsup.data.sources import Source
from selfsup.encoders.encoder import Encoder
from selfsup.losses.measures import Distance
from selfsup.methods.signs import pair_signs
from selfsup.training.loop import check_batch
from selfsup.training.pretrain import local_batches
from selfsup.training.step import frozen_running_stats

UNKNOWN, KNOWN = 0.6, 0.9
"""Up to the first share of right neighbours the rate is the highest, from the second the lowest."""
BATCHES = 4
"""Batches that are looked at."""


class Rates(NamedTuple):
    """Of AdamW for 256 images; for other batches they scale with the square root."""

    random: float
    """From random weights."""
    highest: float
    """From an encoder that knows little of the classes."""
    lowest: float
    """From one that knows them."""


WITH_BATCH_NORMS = Rates(6e-3, 6e-3, 1e-3)
WITHOUT = Rates(1e-3, 2e-4, 7e-5)
"""Vision transformers and others with layer norms: what they know is lost at a few times this."""
LEJEPA, LEJEPA_WITHOUT = 5e-3, 2e-3
"""Of LeJEPA with AdamW for 256 images, with batch norms and without, from any start."""
LAYER_DECAY = 0.75
"""From one layer to the next towards the input, of networks without batch norms from --init."""


def has_batch_norms(encoder: nn.Module) -> bool:
    """Whether the scale of a network's weights is normalised away, so that high rates are safe."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())


def first_rate(known: float, rates: Rates = WITH_BATCH_NORMS) -> float:
    """Return AdamW's peak rate for 256 images by the share of images whose class is known.

    Between the two shares it falls evenly on a logarithmic scale.

    >>> [round(first_rate(share), 4) for share in (0.3, 0.75, 0.95)]
    [0.006, 0.0024, 0.001]
    """
    part = min(1.0, max(0.0, (known - UNKNOWN) / (KNOWN - UNKNOWN)))
    return float(rates.highest ** (1 - part) * rates.lowest**part)


def known_share(encoder: Encoder, source: Source, config: FinetuneConfig) -> float:
    """Return the share of images whose nearest neighbour in their batch is of their class.

    Measured as a run's first report does: on the batches and views of its first steps, in chunks of
    --micro-batch images, with batch statistics and dropout. Running statistics and random states
    are left as they were. The main process computes it for all.

    Raises:
        UserError: chunks do not divide the batch, or are too small for batch norms.
    """
    accelerator = distributed.start()
    batch = config.classes * config.images
    check_batch(encoder, config, batch, accelerator.num_processes)
    share = 0.0
    if accelerator.is_main_process and source.labels is not None:
        sampler = PKSampler(source.labels, p=config.classes, k=config.images, seed=config.seed)
        batches = local_batches(source, sampler, config.views, config.seed, whole=True)
        with accelerator.autocast():
            found = [
                _nearest(encoder, batches[step], config, accelerator.device)
                for step in range(BATCHES)
            ]
        share = sum(found) / BATCHES
    result: float = distributed.from_main(share)
    return result


@torch.no_grad()
def _nearest(encoder: Encoder, batch: Batch, config: FinetuneConfig, device: torch.device) -> float:
    """Return the share of a batch whose nearest neighbour is of its class."""
    encoder.to(device)
    size = config.micro_batch or len(batch.positions)
    features = []
    states = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with states, frozen_running_stats(encoder):
        for i, start in enumerate(range(0, len(batch.positions), size)):
            chunk = slice(start, start + size)
            torch.manual_seed(seed_for(config.seed, batch.step, f"network/{i}"))
            crops = batch.crops[0][chunk].to(device)
            views = apply(crops, batch.draws[0].rows(chunk), config.views)
            features.append(at_least_float32(encoder(views[:, 0])))
    assert batch.labels is not None
    return pair_signs(torch.cat(features), batch.labels, Distance("cosine"))["nearest"]
