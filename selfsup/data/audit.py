"""The audit: everything is read once, and what others should know of it is written down."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from selfsup.core.errors import UserError
from selfsup.data.decode import FORMATS, ORIENTATION, BadImage
from selfsup.data.near_duplicates import difference_hash, groups, near_pairs
from selfsup.data.sources import Source


class ImageFacts(NamedTuple):
    """One image."""

    bad: str | None
    """Why it cannot be read; then the rest is empty."""
    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    format: str = "array"
    mode: str = ""
    """Pillow's word for channels and bits."""
    turned: bool = False
    """EXIF says that it is not stored upright."""
    sha256: str = ""
    """Of the file, or of the pixels where there is none."""
    hash: int = 0
    """See `near.difference_hash`."""
    mean: tuple[float, ...] = ()
    """Of each channel, in [0, 1]."""
    square: tuple[float, ...] = ()
    """Mean of squares."""


@dataclass(frozen=True)
class Audit:
    """What was found; images are called by their position, since names may come twice."""

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
    """Of each channel, every image counted alike, in [0, 1]."""
    std: list[float]
    exact: list[list[int]]
    """Groups of equal files."""
    near: list[list[int]]
    """Groups that look alike, equal ones included."""
    leaks: list[list[int]]
    """Groups of `near` with images of more than one split."""
    splits: dict[str, int]


def audit(
    source: Source,
    data: str,
    *,
    distance: int = 4,
    threads: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> Audit:
    """Read everything once.

    Args:
        source: the images; a column `split` is looked at for leakage.
        data: what the user called it.
        distance: bits of 64 in which near duplicates may differ.
        threads: images read at a time.
        progress: called after each image.
    """

    def look(position: int) -> ImageFacts:
        found = inspect_image(source, position)
        progress(1)
        return found

    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(look, range(len(source))))
    good = [i for i, found in enumerate(seen) if found.bad is None]
    facts = [seen[i] for i in good]
    split = source.columns.get("split", [])
    mean, std = _moments(facts)
    exact, near, leaks = _duplicates(seen, split, distance)
    return Audit(
        data=data,
        names=[source.name(i) for i in range(len(source))],
        digests=[found.sha256 for found in seen],
        bad={i: found.bad for i, found in enumerate(seen) if found.bad is not None},
        sizes=_sizes([found.size for found in facts]),
        formats=dict(Counter(found.format for found in facts).most_common()),
        modes=dict(Counter(found.mode for found in facts).most_common()),
        turned=sum(found.turned for found in facts),
        sixteen_bits=sum(found.mode.startswith("I") for found in facts),
        classes=_classes(source, good),
        mean=mean,
        std=std,
        exact=exact,
        near=near,
        leaks=leaks,
        splits=dict(Counter(split[i] for i in good)) if split else {},
    )


def _duplicates(
    seen: Sequence[ImageFacts], split: Sequence[str], distance: int
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Groups of equal images, of those that look alike, and of those in more than one split."""
    exact = _equal([found.sha256 for found in seen])
    alike = near_pairs(np.array([found.hash for found in seen], np.uint64), distance)
    near = groups(len(seen), [(g[0], i) for g in exact for i in g[1:]] + alike)
    leaks = [group for group in near if split and len({split[i] for i in group}) > 1]
    return exact, near, leaks


def inspect_image(source: Source, position: int) -> ImageFacts:
    """One image; a bad one is a finding and no error."""
    try:
        data = source.stored(position)
        pixels = source.pixels(position)
    except BadImage as error:
        return ImageFacts(str(error))
    values = pixels.reshape(-1, pixels.shape[2]).astype(np.float32) / 255
    facts: dict[str, Any] = {"mode": f"{pixels.shape[2]} x 8 bits"}
    if data is not None:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
            facts = {"format": image.format or "", "mode": image.mode, "turned": turned}
    return ImageFacts(
        None,
        size=pixels.shape[:2],
        sha256=digest(pixels, data),
        hash=difference_hash(pixels),
        mean=tuple(values.mean(0, dtype=np.float64).tolist()),
        square=tuple((values**2).mean(0, dtype=np.float64).tolist()),
        **facts,
    )


def digest(pixels: np.ndarray, data: bytes | None) -> str:
    """sha256 of a file, or of pixels and their shape."""
    plain = f"{pixels.shape}".encode() + pixels.tobytes() if data is None else data
    return hashlib.sha256(plain).hexdigest()


def _equal(digests: Sequence[str]) -> list[list[int]]:
    """Groups of two and more with the same digest; bad images have none."""
    members: dict[str, list[int]] = {}
    for i, digest in enumerate(digests):
        if digest:
            members.setdefault(digest, []).append(i)
    return [group for group in members.values() if len(group) > 1]


def _sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, int]:
    if not sizes:
        return {}
    table = np.array(sizes)
    found = {"smallest": table.min(0), "median": np.median(table, 0), "largest": table.max(0)}
    return {
        f"{word} {side}": int(values[i])
        for word, values in found.items()
        for i, side in enumerate(("height", "width"))
    }


def _classes(source: Source, good: Sequence[int]) -> dict[str, int]:
    if source.labels is None:
        return {}
    counts = Counter(source.labels[list(good)].tolist())
    return {name: counts[label] for label, name in enumerate(source.classes)}


def _moments(seen: Sequence[ImageFacts]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel."""
    if not seen:
        return [], []
    mean = np.array([found.mean for found in seen]).mean(0)
    square = np.array([found.square for found in seen]).mean(0)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.round(4).tolist(), deviation.round(4).tolist()


def write_audit(found: Audit, file: Path) -> None:
    """As JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(found), indent=1) + "\n")


def read_audit(file: Path) -> Audit:
    """What `write_audit` wrote.

    Raises:
        UserError: the file is not there, or is no audit.
    """
    try:
        table = json.loads(file.read_text())
        table["bad"] = {int(position): why for position, why in table["bad"].items()}
        return Audit(**table)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; tools/audit.py writes it") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is no audit: {error}") from None


LOOKED_AT = 16  # images that are read again, to see whether the audit is of these


def units(source: Source, found: Audit, *, together: bool) -> list[list[int]]:
    """Positions to train on, without the bad ones; near duplicates as one unit if `together`.

    The source may be a part of what was audited, one split of a manifest for example, if names
    come but once.

    Raises:
        UserError: the audit is of other images.
    """
    audited = _audited(source, found)
    own = {position: i for i, position in enumerate(audited)}
    alike = [sorted(own[k] for k in group if k in own) for group in found.near]
    alike = [group for group in alike if len(group) > 1] if together else []
    grouped = {i for group in alike for i in group}
    single = [[i] for i, k in enumerate(audited) if k not in found.bad and i not in grouped]
    return sorted(single + alike)


def _audited(source: Source, found: Audit) -> list[int]:
    """For each image of the source, its position in the audit."""
    names = [source.name(i) for i in range(len(source))]
    if names == found.names:
        audited = list(range(len(names)))
    else:
        place = {name: i for i, name in enumerate(found.names)}
        unknown = set(names) - place.keys()
        if unknown or len(place) < len(found.names):
            told = f"{min(unknown)!r} is not in it" if unknown else "names in it come twice"
            raise UserError(
                f"the audit of {found.data} is of other images: {told}; run tools/audit.py again"
            )
        audited = [place[name] for name in names]
    good = [i for i, k in enumerate(audited) if k not in found.bad]
    for i in good[:: max(1, len(good) // LOOKED_AT)]:
        if inspect_image(source, i).sha256 != found.digests[audited[i]]:
            raise UserError(
                f"{names[i]!r} is not what it was when {found.data} was audited; "
                "run tools/audit.py again"
            )
    return audited
