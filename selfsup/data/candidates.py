"""Candidates: pairs of images that may be copies, found in a time that grows like n log n.

Two descriptions of a thumbnail, each of unit length: its brightness on 8 x 8 places, which a crop
or a re-encoding hardly changes, and the strengths of its low frequencies, which a shift hardly
changes. In each, random trees split all images again and again at the median along a random
direction, down to leaves of some hundred; an image's nearest in its leaf are its candidates. Copies
lie so close that one of several trees has them in one leaf:

    a split separates a pair with probability 0.05, a tree of 10 splits keeps it with 0.95^10 = 0.6,
    and 8 trees miss it with 0.4^8 = 0.0007

Shape letters: n images, d width of a description, m images of a leaf, p pairs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.seeds import generator
from selfsup.data.thumbnails import SIDE, Thumbnails

TREES = 8  # of each description
LEAF = 128  # images of a leaf, at most
NEAREST = 4  # candidates of an image in a leaf
WIDTH = 32  # principal components of a description that are kept
FARTHEST = {"places": 0.5, "frequencies": 0.5}  # distance of two copies; unrelated ones have 1.4
CHUNK_IMAGES = 4096
CHUNK_LEAVES = 64
SAMPLE = 20_000  # images that principal components are computed from


def candidate_pairs(thumbnails: Thumbnails, side: Tensor | None = None) -> Tensor:
    """List pairs that may be copies, int64 [p, 2], the lower position first, each once.

    Args:
        thumbnails: n images, all with some contrast.
        side: int64 [n]; only pairs of images with different numbers, such as train and test.
    """
    n = len(thumbnails.brightness)
    if n < 2:
        return torch.zeros(0, 2, dtype=torch.int64)
    tables = {"places": _components(thumbnails, _places)}
    tables["frequencies"] = _components(thumbnails, _frequencies)
    keys: list[Tensor] = []
    for name, x in tables.items():
        for tree in range(TREES if n > LEAF else 1):
            i, j = _neighbours_in_leaves(x, _leaves(x, tree, name), FARTHEST[name], side)
            other = next(table for key, table in tables.items() if key != name)
            close = (other[i] - other[j]).norm(dim=1) <= 2 * FARTHEST[name]
            i, j = i[close], j[close]
            keys.append((torch.minimum(i, j) * n + torch.maximum(i, j)).unique())
    key = torch.cat(keys).unique()
    return torch.stack([key // n, key % n], 1)


def _components(thumbnails: Thumbnails, describe: Callable[[Tensor], Tensor]) -> Tensor:
    """Describe all images by principal components, which keep their distances. [n, d]."""
    x = torch.cat([describe(chunk.float()) for chunk in thumbnails.brightness.split(CHUNK_IMAGES)])
    sample = x[:: max(1, len(x) // SAMPLE)]
    centred = (sample - sample.mean(0)).double()
    _, axes = torch.linalg.eigh(centred.T @ centred)
    components: Tensor = (x - x.mean(0)) @ axes[:, -WIDTH:].float()
    return components


def _places(brightness: Tensor) -> Tensor:
    """Brightness on 8 x 8 places, without mean and contrast. [n, 64]."""
    x = F.avg_pool2d(brightness[:, None], 4).flatten(1)
    return F.normalize(x - x.mean(1, keepdim=True))


def _frequencies(brightness: Tensor) -> Tensor:
    """Roots of the strengths of low frequencies, faded out at the border. [n, 91]."""
    fade = torch.sin(torch.pi * (torch.arange(SIDE) + 0.5) / SIDE)
    x = (brightness - brightness.mean((1, 2), keepdim=True)) * fade * fade[:, None]
    strength = torch.fft.rfft2(x).abs()[:, :, :7]
    low = torch.cat([strength[:, :7], strength[:, -6:]], 1).flatten(1).sqrt()
    return F.normalize(low - low.mean(1, keepdim=True))


def _leaves(x: Tensor, tree: int, name: str) -> Tensor:
    """Split at medians until leaves are small. [leaves, m], -1 where a leaf is not full."""
    n = len(x)
    depth = max(0, (n - 1) // LEAF).bit_length()
    size = -(-n // 2**depth)
    order = torch.full((size * 2**depth,), -1)
    order[torch.linspace(0, len(order) - 1, n).long()] = torch.arange(n)  # spread what is missing
    g = generator(0, tree, f"leaves/{name}")
    directions = torch.randn(x.shape[1], depth, generator=g)
    projected = torch.cat([x @ directions, torch.zeros(1, depth)])  # the last row is for -1
    for level in range(depth):
        order = order.view(2**level, -1)
        half = order.shape[1] // 2
        values = projected[order, level]
        order = order.gather(1, values.argsort(1))
        order = torch.stack([order[:, :half], order[:, half:]], 1)
    return order.reshape(2**depth, -1)


def _neighbours_in_leaves(
    x: Tensor, leaves: Tensor, farthest: float, side: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Find the nearest of each image in its leaf, up to a distance."""
    first, second = [], []
    for rows in leaves.split(CHUNK_LEAVES):
        points = x[rows.clamp(min=0)]  # [leaves, m, d]
        distances = torch.cdist(points, points)
        allowed = (rows[:, :, None] != rows[:, None, :]) & (rows >= 0)[:, None, :]
        if side is not None:
            allowed &= side[rows][:, :, None] != side[rows][:, None, :]
        distances.masked_fill_(~allowed, torch.inf)
        k = min(NEAREST, rows.shape[1])
        nearest, index = distances.topk(k, 2, largest=False)
        found = (nearest <= farthest) & (rows >= 0)[:, :, None]
        neighbours = rows[:, None, :].expand_as(distances).gather(2, index)
        first.append(rows[:, :, None].expand_as(neighbours)[found])
        second.append(neighbours[found])
    return torch.cat(first), torch.cat(second)
