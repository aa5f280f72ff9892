"""Near duplicates by a perceptual hash: images that look alike whatever their bytes.

Shape letters: n images.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

BITS = 64


def difference_hash(image: np.ndarray) -> int:
    """64 bits: is each of 8 x 8 places of the shrunken grey image darker than its right neighbour.

    Source: N. Krawetz, "Kind of like that" (2013), called dHash. An even image has no bit set.

    Args:
        image: uint8 [h, w, c].
    """
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float().mean(1)
    x = F.interpolate(x[None], (8, 9), mode="bilinear", antialias=True)[0, 0].round()
    return int.from_bytes(np.packbits((x[:, :-1] < x[:, 1:]).numpy()).tobytes(), "big")


def near_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Pairs that connect all hashes which differ in at most `distance` bits; even images are alone.

    Equal hashes make a chain. The others are cut into distance + 1 pieces: of two so near, one
    piece at least is equal, so that only hashes with an equal piece are compared.

    Args:
        hashes: uint64 [n].
        distance: below 16.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    chain = [(i, j) for i, j in pairwise(order.tolist()) if hashes[i] and hashes[i] == hashes[j]]
    known, place = ordered[first], order[first]
    place, known = place[known != 0], known[known != 0]
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    found = set()
    for low, high in pairwise(edges.tolist()):
        piece = known & np.uint64(((1 << (high - low)) - 1) << low)
        by_piece = np.argsort(piece, kind="stable")
        starts = np.flatnonzero(np.diff(piece[by_piece])) + 1
        for rows in np.split(by_piece, starts):
            found |= _within(known, rows, distance)
    return chain + [(int(place[i]), int(place[j])) for i, j in sorted(found)]


def _within(hashes: np.ndarray, rows: np.ndarray, distance: int) -> set[tuple[int, int]]:
    """Near pairs among `rows`."""
    pairs = set()
    for k, i in enumerate(rows[:-1]):
        others = rows[k + 1 :]
        near = others[np.bitwise_count(hashes[i] ^ hashes[others]) <= distance]
        pairs |= {(int(i), int(j)) for j in near}
    return pairs


def groups(n: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Connected images, those of two and more: each group ascending, groups by their first."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        one, other = sorted((root(i), root(j)))
        parent[other] = one
    members: dict[int, list[int]] = {}
    for i in range(n):
        members.setdefault(root(i), []).append(i)
    return [group for group in members.values() if len(group) > 1]
