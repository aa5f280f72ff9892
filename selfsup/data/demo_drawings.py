"""Drawings for a demonstration: flat parts, each in ten lights, colours and positions.

A part is an outline with a pattern of holes. Every image of it has another direction, size, place,
paint, ground and light, so that neither raw pixels nor colours tell which part it is.
"""

import math
from pathlib import Path

import numpy as np

from selfsup.core.seeds import seed_for

TRAIN_PARTS, TEST_PARTS = 120, 16
DRAWINGS = 10
"""Of each part."""
FINE = 2  # samples of a pixel in each direction


def write_demo_drawings(out: Path, *, side: int, seed: int) -> tuple[Path, Path]:
    """Write train.npz and test.npz, images of other parts.

    Args:
        out: the folder.
        side: of an image, in pixels.
        seed: of the parts and of how they are drawn.
    """
    images = [
        [drawing(part, i, side=side, seed=seed) for i in range(DRAWINGS)]
        for part in range(TRAIN_PARTS + TEST_PARTS)
    ]
    stacked = np.stack(images)  # [parts, drawings, side, side, 3]
    labels = np.arange(len(images)).repeat(DRAWINGS)
    train = TRAIN_PARTS * DRAWINGS
    flat = stacked.reshape(-1, side, side, 3)
    np.savez(out / "train.npz", images=flat[:train], labels=labels[:train])
    np.savez(out / "test.npz", images=flat[train:], labels=labels[train:])
    return out / "train.npz", out / "test.npz"


def drawing(part: int, number: int, *, side: int, seed: int = 0) -> np.ndarray:
    """One drawing of a part, uint8 [side, side, 3]; both numbers count from 0."""
    shape = np.random.default_rng(seed_for(seed, part, "part"))
    scene = np.random.default_rng(seed_for(seed, part * DRAWINGS + number, "scene"))
    x, y = _plane(scene, side * FINE)
    inside = _outline(shape, x, y) & ~_holes(shape, x, y)
    paint, ground = _two_colours(scene)
    pixels = np.where(inside[..., None], paint, ground) * _light(scene, side * FINE)[..., None]
    fine = pixels.reshape(side, FINE, side, FINE, 3).mean((1, 3))
    noise = scene.normal(0, 0.02, (side, side, 3))
    levels: np.ndarray = ((fine + noise).clip(0, 1) * 255).round().astype(np.uint8)
    return levels


def _plane(scene: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in the part's own frame: turned, scaled and moved at random."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    move_x, move_y = scene.uniform(-0.12, 0.12, 2)
    turn, scale = scene.uniform(0, 2 * math.pi), scene.uniform(0.62, 0.82)
    x, y = (x - move_x) / scale, (y - move_y) / scale
    return x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)


def _outline(shape: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a closed curve: a circle with three waves of random height."""
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    border = np.full_like(angle, 0.8)
    for waves in shape.choice(np.arange(2, 8), 3, replace=False):
        height, place = shape.uniform(0.05, 0.2), shape.uniform(0, 2 * math.pi)
        border += height * np.cos(waves * angle + place)
    return np.asarray(radius < border.clip(0.3, 1.15))


def _holes(shape: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in one of one to four holes: round ones or slots."""
    holes = np.zeros(x.shape, dtype=bool)
    for _ in range(shape.integers(1, 5)):
        away, angle = shape.uniform(0.0, 0.5), shape.uniform(0, 2 * math.pi)
        u, v = x - away * math.cos(angle), y - away * math.sin(angle)
        turn = shape.uniform(0, math.pi)
        along, across = (
            u * math.cos(turn) + v * math.sin(turn),
            v * math.cos(turn) - u * math.sin(turn),
        )
        width, length = shape.uniform(0.07, 0.16), shape.choice([0.0, 0.22])
        holes |= np.hypot(np.maximum(np.abs(along) - length, 0), across) < width
    return holes


def _two_colours(scene: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint and ground, RGB in [0, 1], which differ in brightness."""
    dark, bright = scene.uniform(0.05, 0.4, 3), scene.uniform(0.55, 1.0, 3)
    return (dark, bright) if scene.random() < 0.5 else (bright, dark)


def _light(scene: np.random.Generator, side: int) -> np.ndarray:
    """Brightness that falls off in a random direction, [side, side]."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle, strength = scene.uniform(0, 2 * math.pi), scene.uniform(0.0, 0.5)
    light: np.ndarray = 1 - strength * (0.5 + x * math.cos(angle) + y * math.sin(angle))
    return light
