"""Leaks: the same file, the same looks, and not what is near something that is near."""

import numpy as np
import torch

from selfsup.data.sources import ArraySource
from selfsup.evaluate.leaks import find_leaks


def source(*images: np.ndarray) -> ArraySource:
    return ArraySource(np.stack(images), None, [])


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_equal_and_similar_images_are_found_and_others_are_not() -> None:
    brighter = np.clip(noise(1).astype(int) + 3, 0, 255).astype(np.uint8)
    leaks = find_leaks(source(noise(0), noise(1)), source(noise(0), brighter, noise(2)))
    assert leaks.exact.tolist() == [True, False, False]
    assert leaks.near.tolist() == [True, True, False]
    assert leaks.facts() == {"leaked files": 1, "leaked by looks": 1}


def test_even_images_look_like_nothing() -> None:
    plain = np.full((16, 16, 3), 50, np.uint8)
    leaks = find_leaks(source(plain), source(plain + 1))
    assert not torch.cat([leaks.exact, leaks.near]).any()
