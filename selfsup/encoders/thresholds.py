"""Thresholds on the cosine, as `selfsup verify` saves them: for a pair, and for a whole gallery.

A threshold that one of a hundred different pairs passes is passed by ten images of a gallery of
1,000 that show something else. So a search takes the threshold that one of 100 x 1,000 passes.
Example with false accept rate 0.01 and 100,000 pairs of two labels:

    images searched   1      10      100      1,000    10,000
    accepted pairs    1,000  100     10       1        none, as there are too few pairs to say
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.core.json_files import read_json

SIZES = tuple(step * 10**power for power in range(9) for step in (1, 2, 5))
"""Numbers of images of a gallery that thresholds are saved for."""


class GalleryThreshold(NamedTuple):
    """A threshold for searches in a gallery, and how well it was measured."""

    value: float
    """Cosine above which an image is of the same thing."""
    told: int
    """Images of the largest gallery that the measured pairs suffice for; 1 without galleries."""
    false_alarms: float | None
    """Fraction of searches for something else that are answered, at most; None: not recorded."""
    of_a_pair: float
    """The same of a single comparison, which selfsup verify prints as its threshold."""


def read_threshold(run: Path, gallery: int = 1) -> float | None:
    """Read the threshold that `selfsup verify` measured for a run, or that a bundle contains.

    Args:
        run: the folder of the run or the bundle.
        gallery: images that each query is compared with.

    Returns:
        Cosine above which an image is of the same thing, where at most the fraction of queries that
        verify was given (`--keep`) accepts anything else in such a gallery. None if it was not
        measured. For more images than the measured pairs can tell, the highest.
    """
    threshold = read_gallery_threshold(run, gallery)
    return None if threshold is None else threshold.value


def read_gallery_threshold(run: Path, gallery: int) -> GalleryThreshold | None:
    """Read the threshold as `read_threshold`, with how well it was measured."""
    for name, record in (("verify.json", ()), ("bundle.json", ("figures", "verify"))):
        try:
            content: Any = read_json(run / name)
            verified = content
            for key in record:
                verified = verified.get(key, {}) if isinstance(verified, dict) else {}
            sizes = verified.get("details", {}).get("thresholds", {})
            if sizes:
                keep = verified.get("settings", {}).get("keep")
                return _for_gallery(sizes, gallery, None if keep is None else float(keep))
            value = float(content["threshold"] if record else content["facts"]["threshold"])
            return GalleryThreshold(value, 1, None, value)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _for_gallery(
    thresholds: Mapping[str, float], gallery: int, false_alarms: float | None
) -> GalleryThreshold:
    """Choose the threshold of the next larger gallery; no pair may pass that of the largest."""
    sizes = {int(size): float(value) for size, value in thresholds.items()}
    value = sizes[min((size for size in sizes if size >= gallery), default=max(sizes))]
    told = sorted(sizes)[-2] if len(sizes) > 1 else 1
    return GalleryThreshold(value, told, false_alarms, sizes[min(sizes)])
