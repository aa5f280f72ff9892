"""The audit: read every image once, and record what training should know of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from selfsup.core.disk import write_to, write_whole
from selfsup.core.errors import UserError
from selfsup.core.json_files import read_json
from selfsup.core.words import counted
from selfsup.data.alignment import Limits
from selfsup.data.decode import FORMATS, ORIENTATION, BadImage
from selfsup.data.duplicates import find_duplicates, maskable, too_large
from selfsup.data.embedded import stored_digest
from selfsup.data.sources import Source
from selfsup.data.thumbnails import thumbnail

AT_ONCE = 4096
"""Images that the threads are given at a time: each that waits takes more memory than its facts."""


class ImageFacts(NamedTuple):
    """Facts of one image."""

    bad: str | None
    """Why it cannot be read; then all other fields are empty."""
    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    format: str = "array"
    mode: str = ""
    """Pillow's name for channels and bits."""
    turned: bool = False
    """Whether its EXIF tag rotates it."""
    sha256: str = ""
    """Of the file, or of the pixels where there is none."""
    thumbnail: bytes = b""
    """`thumbnails.thumbnail`, to find near duplicates by."""
    mean: tuple[float, ...] = ()
    """Of each channel, in [0, 1]."""
    square: tuple[float, ...] = ()
    """Mean of the squares of each channel."""


@dataclass(frozen=True)
class Audit:
    """Facts of all images; they are listed by position, since names may repeat."""

    data: str
    names: list[str]
    digests: list[str]
    """sha256 of each file, or of its pixels where there is none; empty for bad images."""
    bad: dict[int, str]
    """Position and reason."""
    sizes: dict[str, int]
    """Smallest, median and largest height and width."""
    formats: dict[str, int]
    modes: dict[str, int]
    turned: int
    sixteen_bits: int
    classes: dict[str, int]
    """Readable images of each."""
    mean: list[float]
    """Of each channel, in [0, 1]; every image has the same weight."""
    std: list[float]
    exact: list[list[int]]
    """Groups of equal files."""
    near: list[list[int]]
    """Groups of near duplicates, equal files included."""
    leaks: list[list[int]]
    """Groups of near duplicates with images of more than one split."""
    two_classes: list[list[int]]
    """Groups of `near` with more than one label."""
    splits: dict[str, int]

    @property
    def too_large(self) -> list[list[int]]:
        """Groups of `near` with so many of all images that they are perhaps alike, not copies."""
        return too_large(self.near, len(self.names))


def audit(
    source: Source,
    data: str,
    *,
    limits: Limits | None = None,
    threads: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> Audit:
    """Read everything once.

    Args:
        source: the images; near duplicates in more than one word of its column `split` are leaks.
        data: its name on the command line.
        limits: largest residuals of near duplicates; by default those of `Limits`.
        threads: images read at a time.
        progress: called after each image.
    """

    def inspect(position: int) -> ImageFacts:
        facts = inspect_image(source, position)
        progress(1)
        return facts

    everything: list[ImageFacts] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source), AT_ONCE):
            everything += pool.map(inspect, range(start, min(start + AT_ONCE, len(source))))
    good = [i for i, facts in enumerate(everything) if facts.bad is None]
    readable = [everything[i] for i in good]
    split = source.columns.get("split", [])
    mean, std = _moments(readable)
    duplicates = find_duplicates(
        [facts.sha256 for facts in everything],
        [facts.thumbnail for facts in everything],
        split=split,
        labels=[] if source.labels is None else source.labels.tolist(),
        limits=limits or Limits(),
    )
    return Audit(
        data=data,
        names=[source.name(i) for i in range(len(source))],
        digests=[facts.sha256 for facts in everything],
        bad={i: facts.bad for i, facts in enumerate(everything) if facts.bad is not None},
        sizes=_sizes([facts.size for facts in readable]),
        formats=dict(Counter(facts.format for facts in readable).most_common()),
        modes=dict(Counter(facts.mode for facts in readable).most_common()),
        turned=sum(facts.turned for facts in readable),
        sixteen_bits=sum(facts.mode.startswith("I") for facts in readable),
        classes=_classes(source, good),
        mean=mean,
        std=std,
        **duplicates._asdict(),
        splits=dict(Counter(split[i] for i in good)) if split else {},
    )


def inspect_image(source: Source, position: int) -> ImageFacts:
    """Read one image; that it cannot be read is a fact and no error."""
    try:
        data = source.stored(position)
        pixels = source.pixels(position)
    except BadImage as error:
        return ImageFacts(str(error))
    values = pixels.reshape(-1, pixels.shape[2]).astype(np.float32) / 255
    stored: dict[str, Any] = {"mode": intern(f"{pixels.shape[2]} x 8 bits")}
    if data is not None:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
            stored = {"format": image.format or "", "mode": image.mode, "turned": turned}
    return ImageFacts(
        None,
        size=pixels.shape[:2],
        sha256=digest(pixels, data),
        thumbnail=thumbnail(pixels),
        mean=tuple(values.mean(0, dtype=np.float64).tolist()),
        square=tuple((values**2).mean(0, dtype=np.float64).tolist()),
        **stored,
    )


def digest(pixels: np.ndarray, data: bytes | None) -> str:
    """Compute the sha256 of a file's bytes, or of pixels and their shape."""
    content = f"{pixels.shape}".encode() + pixels.tobytes() if data is None else data
    return hashlib.sha256(content).hexdigest()


def image_digest(source: Source, position: int) -> str:
    """Compute the sha256 of an image's file, or of its pixels where there is none.

    A folder of embeddings has it already, and "" for an image that could not be read.

    Raises:
        BadImage: it cannot be read.
    """
    known = stored_digest(source, position)
    if known is not None:
        return known
    data = source.stored(position)
    return (
        digest(source.pixels(position), None) if data is None else hashlib.sha256(data).hexdigest()
    )


def _sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, int]:
    if not sizes:
        return {}
    table = np.array(sizes)
    rows = {"smallest": table.min(0), "median": np.median(table, 0), "largest": table.max(0)}
    return {
        f"{word} {side}": int(values[i])
        for word, values in rows.items()
        for i, side in enumerate(("height", "width"))
    }


def _classes(source: Source, good: Sequence[int]) -> dict[str, int]:
    if source.labels is None:
        return {}
    counts = Counter(source.labels[list(good)].tolist())
    return {name: counts[label] for label, name in enumerate(source.classes)}


def _moments(readable: Sequence[ImageFacts]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel."""
    if not readable:
        return [], []
    mean = np.array([facts.mean for facts in readable]).mean(0)
    square = np.array([facts.square for facts in readable]).mean(0)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.round(4).tolist(), deviation.round(4).tolist()


def write_audit(report: Audit, file: Path) -> None:
    """Write JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    text = json.dumps(asdict(report), indent=1) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_to(file, lambda: write_whole(file, text), needed=len(text))


def read_audit(file: Path) -> Audit:
    """Read what `write_audit` wrote.

    Raises:
        UserError: the file does not exist, is not an audit, or is an old one, whose near duplicates
            were often none.
    """
    try:
        table = read_json(file)
        if "near" in table and "two_classes" not in table:
            raise UserError(f"{file} is of an older selfsup; run selfsup audit again")
        table["bad"] = {int(position): why for position, why in table["bad"].items()}
        return Audit(**table)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; selfsup audit writes it") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is not an audit: {error}") from None


SPOT_CHECKS = 16  # images that are read again, to check that the audit is of these


def training_units(source: Source, report: Audit, *, merge_duplicates: bool) -> list[list[int]]:
    """List what an epoch takes one image of: units, each the positions of one or more images.

    Unreadable images are left out. A unit is one image, or with `merge_duplicates` a group of near
    duplicates. With images 0 to 4 of which 2 is bad and 0 looks like 3: [[0, 3], [1], [4]], and
    without merging [[0], [1], [3], [4]]. Of a group of near duplicates with more than a hundredth
    of all images only equal files are merged. Positions are those in `source`.

    `source` may be a part of what was audited, such as one split, if no name comes twice in the
    audit. Some images are read again, to see that they are the audited ones.

    Raises:
        UserError: an image is not in the audit or has changed since, or names come twice.
    """
    audited = _audited_positions(source, report)
    position_in_source = {k: i for i, k in enumerate(audited)}
    merged = []
    groups = maskable(report.near, report.exact, len(report.names)) if merge_duplicates else []
    for group in groups:
        here = sorted(position_in_source[k] for k in group if k in position_in_source)
        merged += [here] if len(here) > 1 else []
    grouped = {i for group in merged for i in group}
    single = [[i] for i, k in enumerate(audited) if k not in report.bad and i not in grouped]
    return sorted(single + merged)


def not_masked(report: Audit) -> str:
    """Say which near duplicates are not merged and why; nothing if all are."""
    groups = report.too_large
    if not groups:
        return ""
    largest = max(map(len, groups))
    have = counted(len(groups), "group of near duplicates has", "groups of near duplicates have")
    return (
        f"{have} more than a hundredth of all images (the "
        f"largest {largest} of {len(report.names)}): perhaps they are alike rather than copies; "
        "--mask-duplicates takes only equal files of them as one. The audit's page shows them"
    )


def _audited_positions(source: Source, report: Audit) -> list[int]:
    """Find the position in the audit of each image of the source."""
    names = [source.name(i) for i in range(len(source))]
    if names == report.names:
        audited = list(range(len(names)))
    else:
        place = {name: i for i, name in enumerate(report.names)}
        unknown = set(names) - place.keys()
        if unknown or len(place) < len(report.names):
            why = f"{min(unknown)!r} is not in it" if unknown else "names in it come twice"
            raise UserError(
                f"the audit of {report.data} is of other images: {why}; run selfsup audit again"
            )
        audited = [place[name] for name in names]
    good = [i for i, k in enumerate(audited) if k not in report.bad]
    for i in good[:: max(1, len(good) // SPOT_CHECKS)]:
        if inspect_image(source, i).sha256 != report.digests[audited[i]]:
            raise UserError(
                f"{names[i]!r} is not what it was when {report.data} was audited; "
                "run selfsup audit again"
            )
    return audited
