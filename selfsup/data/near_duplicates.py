"""Near duplicates: copies of a picture after another encoding, size, light, or a small shift.

Candidates come from two descriptions of a thumbnail (candidates.py), are thrown out where one
coarse step shows that they are no copies (screening.py), and are verified on the pixels of both
(alignment.py).

Shape letters: n images, p pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.data.alignment import EVEN, Limits, same_picture
from selfsup.data.candidates import candidate_pairs
from selfsup.data.screening import screen
from selfsup.data.thumbnails import Thumbnails, stack

ROUNDS = 4  # of joining groups whose centres are copies
CHUNK_IMAGES = 4096


def near_duplicate_groups(thumbnails: Sequence[bytes], limits: Limits) -> list[list[int]]:
    """Group copies: one image at the centre, and others that were verified against it.

    Groups are never chains. Where a is a copy of b and b one of c, they are a group around b; an
    image d that is a copy of c alone is in none. Images without contrast, such as a white page,
    are in no group, for they show nothing that could be compared.

    Args:
        thumbnails: of `thumbnails.thumbnail`; empty for an image that cannot be read.
        limits: largest residuals of two copies.

    Returns:
        Positions of each group of two or more, ascending; groups by their first image.
    """
    tables, members = _distinct(thumbnails, [0] * len(thumbnails))
    pairs = _verified(tables, limits, None).tolist()
    stars = _attach(tables, star_groups(pairs), pairs, limits)
    for _ in range(ROUNDS):
        before = len(stars)
        stars = _join(tables, stars, limits)
        if len(stars) == before:
            break
    in_a_star = {i for group in stars.values() for i in group}
    single = [[i] for i in range(len(members)) if i not in in_a_star]
    groups = [sorted(k for i in group for k in members[i]) for group in [*stars.values(), *single]]
    return sorted(group for group in groups if len(group) > 1)


def copies_between(thumbnails: Sequence[bytes], side: Sequence[int], limits: Limits) -> Tensor:
    """List verified copies of which one lies on each side, such as train and test.

    Args:
        thumbnails: as above.
        side: a number for each image.
        limits: largest residuals of two copies.

    Returns:
        int64 [p, 2], positions of the two. Of images with equal thumbnails each is in some pair.
    """
    tables, members = _distinct(thumbnails, side)
    sides = torch.tensor([side[group[0]] for group in members], dtype=torch.int64)
    pairs = _verified(tables, limits, sides).tolist()
    both = []
    for a, b in pairs:  # each image of equal ones once: all pairs of thousands would be millions
        both += [(i, members[b][0]) for i in members[a]]
        both += [(members[a][0], j) for j in members[b][1:]]
    return torch.tensor(both, dtype=torch.int64).reshape(-1, 2)


def star_groups(pairs: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Group around the images with most copies: centre -> the centre and its copies.

    The image with most copies takes all of them, then the next of those that are left. With the
    copies 0-1, 1-2, 2-3, image 1 takes 0 and 2 (2 has as many, but a higher number), and 3 has
    nobody left.
    """
    copies: dict[int, list[int]] = {}
    for i, j in pairs:
        copies.setdefault(i, []).append(j)
        copies.setdefault(j, []).append(i)
    stars: dict[int, list[int]] = {}
    taken: set[int] = set()
    for centre in sorted(copies, key=lambda i: (-len(copies[i]), i)):
        left = [i for i in copies[centre] if i not in taken]
        if centre not in taken and left:
            stars[centre] = [centre, *left]
            taken.update(stars[centre])
    return stars


def _distinct(
    thumbnails: Sequence[bytes], side: Sequence[int]
) -> tuple[Thumbnails, list[list[int]]]:
    """Take one of equal thumbnails of a side; leave out those without contrast or content.

    Returns:
        The tables of the distinct thumbnails, and the positions that have each.
    """
    contrast = torch.zeros(len(thumbnails))
    for start in range(0, len(thumbnails), CHUNK_IMAGES):
        chunk = slice(start, start + CHUNK_IMAGES)
        brightness = stack(thumbnails[chunk]).brightness
        contrast[chunk] = brightness.flatten(1).float().std(1, correction=0)
    members: dict[tuple[bytes, int], list[int]] = {}
    for i in (contrast >= EVEN).nonzero()[:, 0].tolist():
        members.setdefault((thumbnails[i], side[i]), []).append(i)
    distinct = stack([thumbnails[group[0]] for group in members.values()])
    return distinct, list(members.values())


def _verified(tables: Thumbnails, limits: Limits, side: Tensor | None) -> Tensor:
    """Find pairs of copies. int64 [p, 2]."""
    pairs = screen(tables.brightness, candidate_pairs(tables, side))
    return pairs[same_picture(tables, pairs, limits)]


def _attach(
    tables: Thumbnails,
    stars: dict[int, list[int]],
    pairs: Sequence[Sequence[int]],
    limits: Limits,
) -> dict[int, list[int]]:
    """Add to each group the copies of its images that are copies of its centre too.

    The candidates of an image are its nearest few, so that not every copy was compared with it.
    """
    centre_of = {i: centre for centre, group in stars.items() for i in group}
    both = [*pairs, *((j, i) for i, j in pairs)]
    checks = sorted({(centre_of[i], j) for i, j in both if i in centre_of and j not in centre_of})
    same = same_picture(tables, torch.tensor(checks, dtype=torch.int64).reshape(-1, 2), limits)
    attached = {centre: list(group) for centre, group in stars.items()}
    for (centre, j), is_copy in zip(checks, same.tolist(), strict=True):
        if is_copy and j not in centre_of:
            attached[centre].append(j)
            centre_of[j] = centre
    return attached


def _join(tables: Thumbnails, stars: dict[int, list[int]], limits: Limits) -> dict[int, list[int]]:
    """Join groups whose centres are copies, if all of the one are copies of the other's centre."""
    centres = sorted(stars)
    pairs = _verified(tables.rows(torch.tensor(centres, dtype=torch.int64)), limits, None)
    joined = dict(stars)
    for star in star_groups(pairs.tolist()).values():
        centre = centres[star[0]]
        for other in (centres[i] for i in star[1:]):
            check = torch.tensor([[centre, i] for i in stars[other]])
            if bool(same_picture(tables, check, limits).all()):
                joined[centre] = joined[centre] + joined.pop(other)
    return joined
