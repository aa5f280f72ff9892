"""Duplicates of an audit: equal files, near duplicates, leaks, and images of two classes.

Shape letters: n images.
"""

from collections.abc import Sequence
from typing import NamedTuple

from selfsup.data.alignment import Limits
from selfsup.data.near_duplicates import copies_between, near_duplicate_groups

MASKED_FRACTION = 0.01
"""A group of near duplicates with more of all images is not masked: its images are perhaps alike
rather than copies."""
MASKED_IMAGES = 10
"""Up to so many images a group is masked in small data too."""


class Duplicates(NamedTuple):
    """Groups of positions, each of two or more."""

    exact: list[list[int]]
    """Equal files, or equal pixels where there are no files."""
    near: list[list[int]]
    """Near duplicates, equal files included."""
    leaks: list[list[int]]
    """Near duplicates in more than one split."""
    two_classes: list[list[int]]
    """Near duplicates with more than one label."""


def find_duplicates(
    digests: Sequence[str],
    thumbnails: Sequence[bytes],
    *,
    split: Sequence[str],
    labels: Sequence[int],
    limits: Limits,
) -> Duplicates:
    """Find all groups.

    Args:
        digests: of n files; empty for images that cannot be read.
        thumbnails: likewise.
        split: a word for each image, or nothing.
        labels: a number for each image, below 0 for none; or nothing.
        limits: largest residuals of two copies.
    """
    exact = equal_digests(digests)
    near = _with_exact(near_duplicate_groups(thumbnails, limits), exact)
    leaks = _leaks(near, thumbnails, split, limits) if len(set(split)) > 1 else []
    two_classes = [g for g in near if labels and len({labels[i] for i in g if labels[i] >= 0}) > 1]
    return Duplicates(exact, near, leaks, two_classes)


def _leaks(
    near: list[list[int]], thumbnails: Sequence[bytes], split: Sequence[str], limits: Limits
) -> list[list[int]]:
    """Groups in more than one split, and copies across splits that are in no such group.

    An image can be a copy of one in another split, and be in a group around a third of its own.
    """
    leaks = [group for group in near if len({split[i] for i in group}) > 1]
    leaked = {i for group in leaks for i in group}
    words = sorted(set(split))
    pairs = copies_between(thumbnails, [words.index(word) for word in split], limits).tolist()
    for i, j in pairs:
        if i not in leaked or j not in leaked:
            leaks.append([i, j])
            leaked |= {i, j}
    return sorted(leaks)


def equal_digests(digests: Sequence[str]) -> list[list[int]]:
    """Group images with the same digest; bad images have none."""
    members: dict[str, list[int]] = {}
    for i, digest in enumerate(digests):
        if digest:
            members.setdefault(digest, []).append(i)
    return [group for group in members.values() if len(group) > 1]


def _with_exact(groups: list[list[int]], exact: list[list[int]]) -> list[list[int]]:
    """Add groups of equal files that show nothing, such as white pages: looks do not group them."""
    grouped = {i for group in groups for i in group}
    return sorted(groups + [group for group in exact if not grouped.issuperset(group)])


def maskable(near: Sequence[list[int]], exact: Sequence[list[int]], n: int) -> list[list[int]]:
    """List the groups of which training may use one image: of too large ones only equal files."""
    large = too_large(near, n)
    doubtful = {i for group in large for i in group}
    small = [group for group in near if group not in large]
    return sorted(small + [group for group in exact if doubtful.issuperset(group)])


def too_large(near: Sequence[list[int]], n: int) -> list[list[int]]:
    """List groups of near duplicates with more than a hundredth of n images, and more than ten."""
    return [group for group in near if len(group) > max(MASKED_IMAGES, MASKED_FRACTION * n)]
