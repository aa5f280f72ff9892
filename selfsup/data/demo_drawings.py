"""Drawings for a demonstration: cloths, each seen ten times.

A cloth has a palette, which others have too, and a pattern of its own. Every image is another piece
of it, turned, nearer or farther and in another light, so that pixels seldom lie on each other.
"""

import math
from pathlib import Path

import numpy as np

from selfsup.core.seeds import seed_for

TRAIN_CLOTHS, TEST_CLOTHS = 120, 16
DRAWINGS = 10
"""Of each cloth."""
FINE = 2  # samples of a pixel in each direction
MOST_TURN = math.radians(30)
PALETTES = np.array(
    [
        [[0.15, 0.25, 0.45], [0.90, 0.88, 0.80], [0.75, 0.25, 0.20]],
        [[0.20, 0.38, 0.28], [0.93, 0.85, 0.62], [0.45, 0.22, 0.15]],
        [[0.55, 0.20, 0.32], [0.88, 0.74, 0.70], [0.25, 0.22, 0.28]],
        [[0.85, 0.55, 0.20], [0.25, 0.42, 0.48], [0.95, 0.92, 0.85]],
    ]
)
"""Three colours each, RGB in [0, 1]."""


def write_demo_drawings(out: Path, *, side: int, seed: int) -> tuple[Path, Path]:
    """Write train.npz and test.npz, images of other cloths.

    Args:
        out: the folder.
        side: of an image, in pixels.
        seed: of the cloths and of how they are drawn.
    """
    cloths = range(TRAIN_CLOTHS + TEST_CLOTHS)
    images = [[drawing(c, i, side=side, seed=seed) for i in range(DRAWINGS)] for c in cloths]
    flat = np.stack(images).reshape(-1, side, side, 3)
    labels = np.arange(len(images)).repeat(DRAWINGS)
    train = TRAIN_CLOTHS * DRAWINGS
    np.savez(out / "train.npz", images=flat[:train], labels=labels[:train])
    np.savez(out / "test.npz", images=flat[train:], labels=labels[train:])
    return out / "train.npz", out / "test.npz"


def drawing(cloth: int, number: int, *, side: int, seed: int = 0) -> np.ndarray:
    """One drawing of a cloth, uint8 [side, side, 3]; both numbers count from 0."""
    pattern = np.random.default_rng(seed_for(seed, cloth, "cloth"))
    scene = np.random.default_rng(seed_for(seed, cloth * DRAWINGS + number, "scene"))
    colours = PALETTES[cloth % len(PALETTES)][pattern.permutation(3)]
    x, y = _piece(scene, side * FINE)
    pixels = colours[_pattern(pattern, x, y)] * _light(scene, side * FINE)
    fine = pixels.reshape(side, FINE, side, FINE, 3).mean((1, 3))
    noise = scene.normal(0, 0.03, (side, side, 3))
    levels: np.ndarray = ((fine + noise).clip(0, 1) * 255).round().astype(np.uint8)
    return levels


def _piece(scene: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Places on the cloth, in widths of an image: another piece, turned, nearer or farther."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    turn, scale = scene.uniform(-MOST_TURN, MOST_TURN), scene.uniform(0.8, 1.25)
    left, top = scene.uniform(-20, 20, 2)
    x, y = x / scale, y / scale
    bend = scene.uniform(0, 0.03) * np.sin(2 * math.pi * (x + y) + scene.uniform(0, 7))
    along = x * math.cos(turn) + y * math.sin(turn) + bend
    return left + along, top + y * math.cos(turn) - x * math.sin(turn)


def _pattern(pattern: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of three colours is where: a ground, a figure, and a fine line through both."""
    period, share = pattern.uniform(0.18, 0.5), pattern.uniform(0.3, 0.6)
    tall = period * pattern.choice([0.5, 1.0, 1.6])
    u, v = x / period, y / tall
    zigzag = np.abs((u * pattern.choice([0.5, 1.0])) % 1 - 0.5) * pattern.uniform(0.6, 1.6)
    row = np.floor(v).astype(int)
    shifted = u + 0.5 * (row % 2)
    figures = (
        u % 1 < share,
        v % 1 < share,
        (u % 1 < share) & (v % 1 < share),
        (u % 1 < share) ^ (v % 1 < share),
        np.hypot(shifted % 1 - 0.5, (v % 1 - 0.5) * tall / period) < share / 1.6,
        (v + zigzag) % 1 < share,
        np.abs(shifted % 1 - 0.5) + np.abs(v % 1 - 0.5) < share,
        (shifted % 1 < share) & (v % 1 < 0.85),
    )
    kind, second = pattern.integers(len(figures)), pattern.integers(2)
    fine = (v if second else u) * pattern.choice([0.5, 1.0]) + pattern.uniform(0, 1)
    line = fine % 1 < pattern.uniform(0.08, 0.2)
    return np.where(line, 2, figures[kind].astype(int))


def _light(scene: np.random.Generator, side: int) -> np.ndarray:
    """Brightness that falls off in a random direction, and its colour, [side, side, 3]."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle, strength = scene.uniform(0, 2 * math.pi), scene.uniform(0.0, 0.5)
    falling = 1.1 - strength * (0.5 + x * math.cos(angle) + y * math.sin(angle))
    light: np.ndarray = falling[..., None] * scene.uniform(0.8, 1.2, 3) * scene.uniform(0.7, 1.1)
    return light
