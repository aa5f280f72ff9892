"""Schedules: what varies over training, as a function of the step alone."""

import math


def cosine(step: int, total: int, *, start: float, end: float) -> float:
    """Half a cosine wave from `start` at step 0 to `end` at step `total`, and `end` after it."""
    progress = min(step / max(total, 1), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(step: int, total: int, *, warmup: int, peak: float, final: float = 0.0) -> float:
    """Rise linearly to `peak` over `warmup` steps, then fall by a cosine to `final`.

    Source: Goyal et al. 2017 (warm-up), Loshchilov & Hutter 2017, equation 5 (cosine). The first
    step already learns: step 0 of a warm-up of w steps has peak / w.

    Args:
        step: steps done before this one, from 0.
        total: steps of the whole run.
        warmup: length of the rise, in steps.
        peak: the value right after the warm-up.
        final: the value at the end of the run.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(step - warmup, total - warmup, start=peak, end=final)
