"""The page of an audit."""

from collections.abc import Sequence

from selfsup.data.audit import Audit
from selfsup.data.decode import BadImage
from selfsup.data.sources import Source
from selfsup.report.page import grid, heading, page, paragraph, picture, small, table

SHOWN = 20
"""Groups of duplicates with pictures."""


def summary(found: Audit) -> list[tuple[str, str]]:
    """What there is to say, a line each: for the terminal and the page."""
    images = len(found.names)
    extra = sum(len(group) - 1 for group in found.exact)
    near = sum(len(group) - 1 for group in found.near) - extra
    lines = [
        ("images", f"{images}: {images - len(found.bad)} can be read, {len(found.bad)} cannot"),
        ("formats", _counts(found.formats)),
        ("modes", _counts(found.modes)),
        ("turned by EXIF", str(found.turned)),
        ("16 bits and more", str(found.sixteen_bits)),
        ("exact duplicates", f"{extra} in {len(found.exact)} groups"),
        ("near duplicates", f"{near} more in {len(found.near)} groups"),
        ("--views.mean", " ".join(map(str, found.mean))),
        ("--views.std", " ".join(map(str, found.std))),
    ]
    if found.sizes:
        smallest, median, largest = (
            f"{found.sizes[f'{word} height']} x {found.sizes[f'{word} width']}"
            for word in ("smallest", "median", "largest")
        )
        lines.insert(3, ("height x width", f"{smallest} to {largest}, median {median}"))
    if found.classes:
        counts = found.classes.values()
        lines.insert(1, ("classes", f"{len(counts)} of {min(counts)} to {max(counts)} images"))
    if found.splits:
        lines += [
            ("splits", _counts(found.splits)),
            ("leaks", f"{len(found.leaks)} groups of duplicates lie in more than one split"),
        ]
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'none'} {count}" for name, count in counts.items()) or "none"


def audit_page(found: Audit, source: Source) -> str:
    """Everything that was found, with pictures of duplicates."""
    parts = [table(["", ""], summary(found))]
    if found.bad:
        parts += [
            heading("Images that cannot be read"),
            table(
                ["image", "why"], [(found.names[i], found.bad[i]) for i in list(found.bad)[:1000]]
            ),
        ]
    for title, groups in (
        ("Duplicates in more than one split", found.leaks),
        ("Duplicates", found.near),
    ):
        if groups:
            parts += [heading(title), _pictures(groups, source)]
    if found.classes:
        parts += [heading("Classes"), table(["class", "images"], found.classes.items())]
    return page(f"Audit of {found.data}", *parts)


def _pictures(groups: Sequence[Sequence[int]], source: Source) -> str:
    """The first groups, a row each."""
    rows = [grid([_thumbnail(source, i) for i in group[:8]], "row") for group in groups[:SHOWN]]
    rest = len(groups) - SHOWN
    return "".join(rows) + (paragraph(f"and {rest} more groups") if rest > 0 else "")


def _thumbnail(source: Source, position: int) -> str:
    name = source.name(position)
    try:
        image = source.pixels(position)
    except BadImage:  # it was there when it was audited
        return paragraph(f"{name} can no longer be read")
    return picture(small(image, 128), name, width=128, jpeg=True)
