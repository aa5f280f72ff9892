"""Folders of images: which files are images, what is passed over, and which folder is the label."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from selfsup.core.errors import UnusableError, UserError
from selfsup.core.notices import notice
from selfsup.core.words import counted
from selfsup.data.decode import SUFFIXES
from selfsup.data.labels import Encoded, encode_labels
from selfsup.data.sources import Source
from selfsup.data.tables import file_source

HIDDEN = {
    *("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot"),  # of Synology and QNAP
    *("__macosx", "__pycache__", "$recycle.bin", "system volume information", "lost+found"),
}
"""Folders that programs make for themselves, beside those that begin with a dot."""
LEFT_BY_PROGRAMS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
UNREAD = (
    *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".psd", ".ico", ".tga"),
    *(".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raw", ".dcm"),
)
"""Suffixes of images that are not read."""
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
LISTED = 5  # names or suffixes in a message


class Listing(NamedTuple):
    """What lies below a folder, by paths relative to it."""

    images: list[str]
    """By the bytes of their paths."""
    others: list[str]
    """Files that are no images."""
    hidden: list[str]
    """Hidden folders, and hidden files that are called like images."""


def is_hidden(name: str) -> bool:
    """Whether programs made this file or folder for themselves."""
    return name.startswith(".") or name.lower() in HIDDEN


def list_files(root: Path) -> Listing:
    """Walk through all folders below `root` but the hidden ones; each real folder counts once.

    Raises:
        UnusableError: a folder cannot be listed, so that images would be left out.
    """
    shut: list[OSError] = []
    images: list[str] = []
    others: list[str] = []
    hidden: list[str] = []
    seen: set[str] = set()
    for inside, folders, names in os.walk(root, onerror=shut.append, followlinks=True):
        real = os.path.realpath(inside)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        relative = os.path.relpath(inside, root)
        place = "" if relative == "." else Path(relative).as_posix() + "/"
        hidden += [place + name + "/" for name in folders if is_hidden(name)]
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in names:
            image = name.lower().endswith(SUFFIXES)
            if is_hidden(name):
                hidden += [place + name] * image
            elif name.lower() not in LEFT_BY_PROGRAMS:
                (images if image else others).append(place + name)
    if shut:
        which = _list([str(error.filename) for error in shut])
        raise UnusableError(
            f"{len(shut)} of the folders in {root} cannot be listed ({which}: {shut[0].strerror}): "
            "make them readable, or move them away"
        )
    return Listing(*(sorted(paths, key=os.fsencode) for paths in (images, others, hidden)))


def folder(root: Path, *, labels: str, channels: int) -> Source:
    """Open every image below `root`; its label is the first folder, or that of `folder:N`.

    Raises:
        UserError: there are no images, or `labels` is no level of folders.
    """
    level = folder_level(root, labels) if labels else None
    listing = list_files(root)
    if not listing.images:
        has = count_suffixes(listing.others)
        found = [f"it has {has}"] if has else []
        found += [f"{_list(listing.hidden)} is hidden"] if listing.hidden else []
        raise UserError("; ".join([f"{root} holds no images ({', '.join(SUFFIXES)})", *found]))
    announce_passed_over(root, listing)
    encoded: Encoded = folder_labels(root, listing.images, level) if labels else (None, [])
    return file_source(root, listing.images, *encoded, channels=channels)


def announce_passed_over(root: Path, listing: Listing) -> None:
    """Print what is no image: other files by their suffixes, and hidden folders."""
    if listing.others:
        notice(
            f"{root}: passed over {counted(len(listing.others), 'other file')} "
            f"({count_suffixes(listing.others)})"
        )
    if listing.hidden:
        notice(f"{root}: passed over what is hidden ({_list(listing.hidden)})")


def count_suffixes(names: Sequence[str]) -> str:
    """Count names by suffix, as ".txt 3, .zip 1", and say what to do with images among them."""
    counts = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)
    first = counts.most_common(LISTED)
    text = ", ".join(f"{suffix} {count}" for suffix, count in first)
    text += "..." if len(counts) > LISTED else ""
    if counts.keys() & set(UNREAD):
        text += "; convert images among them to PNG"
    if counts.keys() & set(ARCHIVES):
        text += "; unpack archives"
    if counts.keys() & {".tar", ".pack"}:
        text += "; shards are opened by their own folder"
    return text


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + ("..." if len(names) > LISTED else "")


def folder_level(where: object, labels: str) -> int | None:
    """Read a level of folders: 1 from "folder:1", -1 from "folder:-1"; None from "label".

    Raises:
        UserError: it is neither.
    """
    if labels == "label":
        return None
    match = re.fullmatch(r"folder:(-?[1-9]\d*)", labels)
    if match is None:
        raise UserError(
            f"{where} has no column {labels!r}: its labels are names of folders. --labels folder:1 "
            "takes the first folder, folder:-1 the last"
        )
    return int(match[1])


def folder_labels(where: object, paths: Sequence[str], level: int | None) -> Encoded:
    """Take the folder at a level as each image's label; None is the first level.

    Images without a folder at the level have no label: -1.
    """
    folders = [path.split("/")[:-1] for path in paths]
    words = [_at(parts, 1 if level is None else level) for parts in folders]
    present = [word for word in words if word is not None]
    if not present:
        return None, []
    if len(present) < len(words):
        notice(
            f"{where}: {len(words) - len(present)} of {len(words)} images have no label (no folder)"
        )
    deepest = max(map(len, folders))
    if level is None and deepest > 1:
        last = sorted({parts[-1] for parts in folders if parts})
        notice(
            f"{where}: labels are the first of up to {deepest} folders "
            f"({_list(sorted(set(present)))}); --labels folder:-1 takes the last ({_list(last)})"
        )
    numbers, classes = encode_labels(present)
    if len(present) == len(words):
        return numbers, classes
    every = torch.full((len(words),), -1)
    every[torch.tensor([word is not None for word in words])] = numbers
    return every, classes


def _at(folders: Sequence[str], level: int) -> str | None:
    """The folder at a level that counts from 1, or from -1 at the end."""
    inside = -len(folders) <= level <= len(folders)
    return folders[level - 1 if level > 0 else level] if inside else None
