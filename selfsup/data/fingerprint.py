"""The fingerprint of a source: whether two runs see the same images."""

import hashlib
from typing import Any

import numpy as np

from selfsup.data.decode import BadImage
from selfsup.data.sources import Source, hash_names

SAMPLED = 64
"""Images whose content counts, evenly spread; names and labels count of all."""


def fingerprint(source: Source) -> dict[str, Any]:
    """Return the number of images, hashes of their names and labels, and of a sample of them.

    It is plain JSON. The content of an image that cannot be read is "".
    """
    labels = "" if source.labels is None else _short(source.labels.numpy().tobytes())
    places = np.linspace(0, len(source) - 1, min(SAMPLED, len(source))).round().astype(int)
    return {
        "images": len(source),
        "names": hash_names(source).hexdigest()[:16],
        "labels": labels + _short("\0".join(source.classes).encode("utf-8", "surrogateescape")),
        "content": {str(place): _content(source, int(place)) for place in places},
    }


def difference(source: Source, old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe how the images of `new`, which are those of `source`, differ from `old`.

    Returns:
        "" if they are the same, as far as the fingerprint tells.
    """
    if old["images"] != new["images"]:
        return f"{old['images']} images -> {new['images']}"
    if old["names"] != new["names"]:
        return f"names {old['names']} -> {new['names']} of {new['images']} images"
    if old["labels"] != new["labels"]:
        return f"labels {old['labels'][:8]} -> {new['labels'][:8]} of {new['images']} images"
    for place, content in old["content"].items():
        now = new["content"].get(place, "")
        if content and now and content != now:
            return f"the content of {source.name(int(place))}: {content} -> {now}"
    return ""


def _content(source: Source, position: int) -> str:
    try:
        stored = source.stored(position)
        return _short(source.pixels(position).tobytes() if stored is None else bytes(stored))
    except BadImage:
        return ""


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
