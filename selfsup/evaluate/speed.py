"""How many images a second encoders embed, timed in turn on one thread.

Shape letters: b images, s side in pixels.
"""

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from selfsup.core.threads import single_threaded
from selfsup.core.transfers import wait_for
from selfsup.evaluate.features import untouched


def images_per_second(
    encoders: Mapping[str, tuple[nn.Module, Tensor]], *, rounds: int
) -> dict[str, float]:
    """Time forward passes of several encoders, on the device of their images.

    They take turns, so that whatever else the machine does slows all alike; one round before is not
    counted.

    Args:
        encoders: each with the images [b, 3, s, s] that it embeds, by name.
        rounds: how often; the median counts.
    """
    spent: dict[str, list[float]] = {name: [] for name in encoders}
    with single_threaded(), torch.inference_mode():
        for turn in range(rounds + 1):
            for name, (encoder, images) in encoders.items():
                with untouched(encoder):
                    seconds = _time(encoder, images)
                if turn:
                    spent[name].append(seconds)
    return {
        name: len(images) / statistics.median(spent[name]) for name, (_, images) in encoders.items()
    }


def _time(encoder: nn.Module, images: Tensor) -> float:
    """Seconds of one forward pass. A GPU works on after a call returns: it is waited for."""
    wait_for(images.device)
    began = time.perf_counter()
    encoder(images)
    wait_for(images.device)
    return time.perf_counter() - began
