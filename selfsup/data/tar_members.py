"""The members of a tar shard as samples: an image, its label and its columns."""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, TypedDict

from selfsup.core.errors import UnusableError, UserError
from selfsup.core.json_files import parse_json
from selfsup.core.words import counted
from selfsup.data.decode import SUFFIXES
from selfsup.data.folders import count_suffixes, is_hidden
from selfsup.data.labels import text_of

TEXTS = (".cls", ".txt", ".json")
LONGEST_TEXT = 1 << 20  # bytes of a label or a caption
MOST_LINKS = 40  # of links to links


class Shard(TypedDict):
    """What the index of a shard stores."""

    samples: list[dict[str, Any]]
    """Of each image `name`, `start`, `size` (-1: it is nowhere), `columns`, and where there are
    such files `cls`, `txt` and `label` (of .json)."""
    notes: list[str]
    """What was left out, with counts."""


Kinds = dict[str, tarfile.TarInfo]
"""Members of one sample, by what follows its key: .jpg, .cls, .mask.png..."""


def read_shard(stream: BinaryIO, file: str) -> Shard:
    """Read all headers and labels of a shard in one pass; `file` is its name in messages.

    Raises:
        UserError: it is no tar, or a label cannot be read.
    """
    notes: list[str] = []
    samples = []
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            members: list[tarfile.TarInfo] = []
            words: dict[int, bytes] = {}
            for member in tar:
                if not member.isdir():
                    members.append(member)
                if member.isfile() and member.name.lower().endswith(TEXTS):
                    words[member.offset_data] = _text(tar, member)
            ending = _check_end(file, stream, tar.offset)
            places = {_normal(member.name): member for member in members if member.isfile()}
            links = {_normal(m.name): _target(m) for m in members if m.issym() or m.islnk()}
            for kinds in _grouped(members, notes):
                for name, image, texts in _images(kinds, notes):
                    sample = {"name": name, **_place(image, places, links), "columns": {}}
                    for kind, member in texts.items():
                        found = _resolve(member, places, links)
                        if found is not None:
                            text = words.get(found.offset_data)
                            _add_words(sample, kind, _text(tar, found) if text is None else text)
                    samples.append(sample)
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UnusableError(f"cannot read {file}: {error}") from None
    return Shard(samples=_with_own_names(samples), notes=_summed(notes) + ending)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(member)
    return b"" if opened is None else opened.read(LONGEST_TEXT)


def _check_end(file: str, stream: BinaryIO, offset: int) -> list[str]:
    """Check that nothing follows the last header that was read, which ends at `offset`.

    A header that is damaged or zeroed ends a tar without a word, and the members behind it would
    be missing.

    Returns:
        A note if the tar has no end mark, as when a copy was cut short between two members.

    Raises:
        UnusableError: other bytes follow.
    """
    stream.seek(offset)
    at = offset
    while block := stream.read(1 << 20):
        if block.count(0) < len(block):
            first = at + len(block) - len(block.lstrip(b"\0"))
            raise UnusableError(
                f"{file} is damaged at byte {offset}: no header of a member is there, and "
                f"bytes that are not read follow from {first} to {stream.seek(0, 2)}. Copy "
                "it again from where it is whole; tars that were joined have to be packed again"
            )
        at += len(block)
    cut = at - offset < 2 * tarfile.BLOCKSIZE
    return ["has no end mark: it may have been cut short between two images"] * cut


def _normal(name: str) -> str:
    """A path without "./" and a leading slash."""
    return posixpath.normpath(name.lstrip("/"))


def _target(member: tarfile.TarInfo) -> str:
    """Where a link points: a hard link from the top of the tar, a symbolic one from its folder."""
    folder = "" if member.islnk() else posixpath.dirname(_normal(member.name))
    return _normal(posixpath.join(folder, member.linkname))


def _resolve(
    member: tarfile.TarInfo, places: dict[str, tarfile.TarInfo], links: dict[str, str]
) -> tarfile.TarInfo | None:
    """The file that a member is, through links; None if it is not in the tar."""
    if member.isfile():
        return member
    name = _target(member)
    for _ in range(MOST_LINKS):
        if name in places:
            return places[name]
        if name not in links:
            return None
        name = links[name]
    return None


def _place(
    member: tarfile.TarInfo, places: dict[str, tarfile.TarInfo], links: dict[str, str]
) -> dict[str, int]:
    found = _resolve(member, places, links)
    if found is None:
        return {"start": 0, "size": -1}
    return {"start": found.offset_data, "size": found.size}


def _grouped(members: list[tarfile.TarInfo], notes: list[str]) -> Iterator[Kinds]:
    """Collect the members of each key, in the order of their first member.

    A member that comes again begins another sample of the same key, as when shards were joined; if
    that has no image, it replaces what came before, as when tar unpacks it.
    """
    groups: dict[str, list[Kinds]] = {}
    for member in members:
        folder, base = posixpath.split(_normal(member.name))
        if (
            is_hidden(base)
            or any(map(is_hidden, folder.split("/")))
            or not (member.isfile() or member.issym() or member.islnk())
        ):
            notes += ["hidden"] * base.lower().endswith(SUFFIXES)
            continue
        key, _, rest = base.partition(".")
        kind = f".{rest.lower()}"
        versions = groups.setdefault(posixpath.join(folder, key), [{}])
        if kind in versions[-1]:
            notes.append("twice")
            versions.append({})
        versions[-1][kind] = member
    for versions in groups.values():
        whole: list[Kinds] = []
        for kinds in versions:
            if whole and not any(kind.endswith(SUFFIXES) for kind in kinds):
                whole[-1].update(kinds)
            else:
                whole.append(kinds)
        yield from whole


def _images(kinds: Kinds, notes: list[str]) -> Iterator[tuple[str, tarfile.TarInfo, Kinds]]:
    """Name, image and texts of each sample among the members of one key.

    1.jpg 1.mask.png 1.cls          one sample, 1.jpg: the mask is another image of it
    1.left.jpg 1.right.jpg 1.cls    one sample, 1.left.jpg: its label is of the key
    2024.01.jpg 2024.02.jpg         two samples: dots of their names
    """
    images = [kind for kind in kinds if kind.endswith(SUFFIXES)]
    unknown = [k for k in kinds if not k.endswith((*SUFFIXES, *TEXTS))]
    notes += [f"other {member.name}" for member in map(kinds.__getitem__, unknown)]
    if not images:
        notes += ["no image"] * bool(kinds)
        return
    plain = [kind for kind in images if kind in SUFFIXES]
    of_key = any(kind in TEXTS for kind in kinds)
    chosen = plain[:1] or (images[:1] if of_key else images)
    notes += ["further"] * (len(images) - len(chosen))
    for kind in chosen:
        stem = kind[: kind.rindex(".")]
        texts = {text: kinds.get(stem + text) or kinds.get(text) for text in TEXTS}
        own = {text: member for text, member in texts.items() if member is not None}
        yield _normal(kinds[kind].name), kinds[kind], own


def _add_words(sample: dict[str, Any], kind: str, data: bytes) -> None:
    """Add the label or the caption that a file of the sample holds; others go into its columns."""
    if kind != ".json":
        sample[kind[1:]] = data.decode("utf-8", "replace").strip()
        return
    table = parse_json(data.decode("utf-8", "replace"))
    if isinstance(table, dict):
        if "label" in table:
            sample["label"] = table.pop("label")
        words = {str(name): text_of(x) for name, x in table.items() if not isinstance(x, list)}
        sample["columns"].update(words)


def _with_own_names(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the second image of a name a name of its own: 1.jpg and 1.jpg (2)."""
    seen: dict[str, int] = {}
    for sample in samples:
        name = sample["name"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            sample["name"] = f"{name} ({seen[name]})"
    return samples


def _summed(notes: list[str]) -> list[str]:
    """Count what was left out."""
    others = [note.removeprefix("other ") for note in notes if note.startswith("other ")]
    counts = Counter(notes)
    sentences = {
        "hidden": f"passed over {counted(counts['hidden'], 'hidden image')}",
        "twice": f"{counted(counts['twice'], 'member has', 'members have')} the name of an earlier "
        "one",
        "further": f"passed over {counted(counts['further'], 'further image')} of samples",
        "no image": f"{counted(counts['no image'], 'sample has', 'samples have')} no image that is "
        "read",
    }
    passed = f"passed over {counted(len(others), 'other file')} ({count_suffixes(others)})"
    return [words for kind, words in sentences.items() if counts[kind]] + [passed] * bool(others)
