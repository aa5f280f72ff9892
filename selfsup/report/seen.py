"""Which images a run has seen: its own of training, and those of the runs that it began with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.core.errors import UserError
from selfsup.core.paths import exists
from selfsup.core.yaml_files import read_yaml

EARLIER = 8
"""Runs that began with one another, at most."""


class ImageSet(NamedTuple):
    """Images by what settings call them."""

    data: str
    split: str = ""
    labels: str = "label"

    def __str__(self) -> str:
        return f"{self.data} ({self.split})" if self.split else self.data


def measured_on(record: dict[str, Any]) -> ImageSet | None:
    """Return the images that an evaluation's figures are of; None if its record does not tell."""
    settings = record.get("settings")
    if not isinstance(settings, dict):
        return None
    labels = str(settings.get("labels") or "label")
    for name in ("test", "queries", "data"):
        if settings.get(name):
            split = "split" if name == "data" else f"{name}_split"
            return ImageSet(str(settings[name]), str(settings.get(split) or ""), labels)
    return None


def trained_on(config: dict[str, Any]) -> list[ImageSet]:
    """List the images of training of a run with these settings, and of the runs before it."""
    seen = []
    for _ in range(EARLIER):
        if config.get("data"):
            seen.append(ImageSet(str(config["data"]), str(config.get("split") or "")))
        file = Path(str(config.get("init") or "")) / "config.yaml"
        if not config.get("init") or not exists(str(file)):
            break
        try:
            _, before = read_yaml(file)
        except UserError:
            break
        config = before if isinstance(before, dict) else {}
    return seen


def is_seen(images: ImageSet, seen: Sequence[ImageSet]) -> bool:
    """Whether some of the images were in training, as far as names of files and splits tell."""
    for other in seen:
        same_split = not images.split or not other.split or images.split == other.split
        if same_split and _places(images.data) & _places(other.data):
            return True
    return False


def _places(data: str) -> set[str]:
    """Paths of the terms of "A + B * 2"."""
    names = [data] if exists(data) else [term.partition(" * ")[0] for term in data.split(" + ")]
    return {str(Path(name.strip()).resolve()) for name in names}
