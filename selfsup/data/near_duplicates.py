"""Near duplicates by a perceptual hash: images that look the same whatever their bytes.

Shape letters: n images.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

BITS = 64


def difference_hash(image: np.ndarray) -> int:
    """Compute 64 bits: is each of 8 x 8 places of the small grey image darker than the next.

    Source: N. Krawetz, "Kind of like that" (2013), called dHash. A uniform image has no bit set.

    Args:
        image: uint8 [h, w, c].
    """
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float().mean(1)
    x = F.interpolate(x[None], (8, 9), mode="bilinear", antialias=True)[0, 0].round()
    return int.from_bytes(np.packbits((x[:, :-1] < x[:, 1:]).numpy()).tobytes(), "big")


def near_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Find pairs that connect all hashes which differ in at most `distance` bits.

    Equal hashes make a chain; uniform images (hash 0) are in no pair. Different hashes are split
    into distance + 1 bands of bits. Two hashes within `distance` have at least one equal band, so
    that only hashes with an equal band are compared. With distance 1 and bands of 4 bits:

        1011 0010 and 1011 0110 differ in one bit, and their first bands are equal: compared
        1011 0010 and 0011 0110 differ in both bands, so in two bits or more: never compared

    Args:
        hashes: uint64 [n].
        distance: below 16.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    chain = [(i, j) for i, j in pairwise(order.tolist()) if hashes[i] and hashes[i] == hashes[j]]
    distinct, place = ordered[first], order[first]
    place, distinct = place[distinct != 0], distinct[distinct != 0]
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    pairs = set()
    for low, high in pairwise(edges.tolist()):
        band = distinct & np.uint64(((1 << (high - low)) - 1) << low)
        by_band = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[by_band])) + 1
        for rows in np.split(by_band, starts):
            pairs |= _pairs_among(distinct, rows, distance)
    return chain + [(int(place[i]), int(place[j])) for i, j in sorted(pairs)]


def _pairs_among(hashes: np.ndarray, rows: np.ndarray, distance: int) -> set[tuple[int, int]]:
    """Compare all hashes of `rows` with each other."""
    pairs = set()
    for k, i in enumerate(rows[:-1]):
        later = rows[k + 1 :]
        close = later[np.bitwise_count(hashes[i] ^ hashes[later]) <= distance]
        pairs |= {(int(i), int(j)) for j in close}
    return pairs


def connected_groups(n: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group connected images; groups of two or more, ascending, ordered by their first image."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for i in range(n):
        members.setdefault(root(i), []).append(i)
    return [group for group in members.values() if len(group) > 1]
