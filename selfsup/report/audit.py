"""The page of an audit, and its summary for the terminal."""

from collections.abc import Sequence

from selfsup.config import TrainConfig
from selfsup.core.words import counted
from selfsup.data.audit import Audit
from selfsup.data.decode import BadImage
from selfsup.data.sources import Source
from selfsup.report.page import Section, Verdict, facts, folded, page, paragraph, table
from selfsup.report.pictures import grid, picture, small

LEAST_STD = 0.01
"""Smallest deviation to advise: divided by a smaller one, changes of colour would be all."""
MAX_BAD = TrainConfig.max_bad
"""Fraction of images that cannot be read, above which training stops if it is not told a larger."""
LISTED = 1000
"""Images that cannot be read, by name."""
SHOWN, OF_GROUP = 12, 5
"""Groups of duplicates with pictures, and images of each: a page stays below 3 MB."""


def summary(report: Audit) -> list[tuple[str, str]]:
    """Summarise an audit as names and values, for the terminal and the page."""
    images = len(report.names)
    extra = sum(len(group) - 1 for group in report.exact)
    near_extra = sum(len(group) - 1 for group in report.near) - extra
    lines = [
        ("images", f"{images}: {images - len(report.bad)} can be read, {len(report.bad)} cannot"),
        ("formats", _counts(report.formats)),
        ("modes", _counts(report.modes)),
        ("turned by EXIF", str(report.turned)),
        ("16 bits and more", str(report.sixteen_bits)),
        ("exact duplicates", f"{extra} in {counted(len(report.exact), 'group')}"),
        ("near duplicates", f"{near_extra} more; {_groups(report.near)}"),
        ("--views.mean", " ".join(map(str, report.mean))),
        ("--views.std", " ".join(map(str, _usable(report.std)))),
    ]
    if report.too_large:
        lines.insert(
            -2,
            ("not masked", f"{counted(len(report.too_large), 'group')}: alike rather than copies?"),
        )
    if report.two_classes:
        lines.insert(-2, ("one picture, two classes", counted(len(report.two_classes), "group")))
    if report.sizes:
        smallest, median, largest = (
            f"{report.sizes[f'{word} height']} x {report.sizes[f'{word} width']}"
            for word in ("smallest", "median", "largest")
        )
        lines.insert(3, ("height x width", f"{smallest} to {largest}, median {median}"))
    if report.classes:
        counts = report.classes.values()
        lines.insert(
            1, ("classes", f"{len(counts)} of {min(counts)} to {counted(max(counts), 'image')}")
        )
    if report.splits:
        lie = counted(len(report.leaks), "group of duplicates lies", "groups of duplicates lie")
        lines += [
            ("splits", _counts(report.splits)),
            ("leaks", f"{lie} in more than one split"),
        ]
    return lines


def _usable(deviations: Sequence[float]) -> list[float]:
    """Deviations to divide by: a channel that hardly varies keeps its scale."""
    return [std if std >= LEAST_STD else 1.0 for std in deviations]


def _groups(groups: Sequence[Sequence[int]]) -> str:
    largest = f", the largest of {max(map(len, groups))} images" if groups else ""
    return f"{counted(len(groups), 'group')}{largest}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'none'} {count}" for name, count in counts.items()) or "none"


def audit_page(report: Audit, source: Source) -> str:
    """Write all facts as a page, with pictures of duplicates."""
    sections = [Section("What is there?", [facts(summary(report))])]
    if report.bad:
        listed = [(report.names[i], report.bad[i]) for i in list(report.bad)[:LISTED]]
        sections.append(
            Section("Images that cannot be read", [table(["image", "why"], listed), _more(report)])
        )
    for title, groups in _kinds(report):
        if groups:
            sections.append(Section(title, [_pictures(groups, source)]))
    if report.classes:
        in_each = table(["class", "images"], report.classes.items())
        classes = counted(len(report.classes), "class", "classes")
        sections.append(Section("Classes", [folded(classes, in_each)]))
    return page(report.data, *sections, kind="Audit", verdict=audit_verdict(report))


def _more(report: Audit) -> str:
    remaining = len(report.bad) - LISTED
    return paragraph(f"and {remaining} more, in the audit's file.") if remaining > 0 else ""


def audit_verdict(report: Audit) -> Verdict:
    """Say in order of weight what is wrong with the images, and what to do about it."""
    images, unreadable = len(report.names), len(report.bad)
    if unreadable == images:
        return Verdict("bad", "No image can be read", ["Training and evaluations refuse them all."])
    refused = unreadable > MAX_BAD * images
    leaks = counted(len(report.leaks), "group of copies lies", "groups of copies lie")
    wrong = counted(len(report.two_classes), "picture is", "pictures are")
    cannot = counted(unreadable, "image cannot", "images cannot")
    number = sum(len(group) - 1 for group in report.near)
    copies = counted(number, "image is a copy of another", "images are copies of others")
    serious = {
        f"{leaks} in more than one split: figures on them are too good.": report.leaks,
        f"{wrong} in two classes: a label is wrong, or the classes overlap.": report.two_classes,
        f"{cannot} be read, {unreadable / images:.1%} of them; training stops above --max-bad, by "
        f"default {MAX_BAD:.0%}.": refused,
    }
    minor = {
        f"{cannot} be read; training takes the next good one.": unreadable and not refused,
        f"{copies}: --audit with --mask-duplicates keeps them from being each other's "
        "negatives.": number,
    }
    sentences = [words for words, holds in (serious | minor).items() if holds]
    if any(serious.values()):
        return Verdict("bad", "Mend these images before you train or measure", sentences)
    if sentences:
        return Verdict("mixed", "Usable, with what is named here in mind", sentences)
    read = counted(images, "image was", "images were")
    return Verdict("good", "Nothing wrong", [f"{read} read; no copies, and none is broken."])


def _kinds(report: Audit) -> list[tuple[str, list[list[int]]]]:
    """Groups by what is wrong with them, each with its heading."""
    exact = {tuple(sorted(group)) for group in report.exact}
    near = [group for group in report.near if tuple(group) not in exact]
    return [
        ("Duplicates in more than one split", report.leaks),
        ("One picture in two classes", report.two_classes),
        ("Groups that are too large to be masked", report.too_large),
        ("Exact duplicates: equal files", report.exact),
        ("Near duplicates: the same picture in other files", near),
    ]


def _pictures(groups: Sequence[Sequence[int]], source: Source) -> str:
    """Show the first groups, a row for each."""
    rows = [grid(_group(source, group), "row") for group in groups[:SHOWN]]
    remaining = len(groups) - SHOWN
    more = paragraph(f"and {counted(remaining, 'more group')}") if remaining > 0 else ""
    return f'<div class="wide">{"".join(rows)}</div>{more}'


def _group(source: Source, group: Sequence[int]) -> list[str]:
    remaining = len(group) - OF_GROUP
    more = [paragraph(f"and {remaining} more")] if remaining > 0 else []
    return [*(_thumbnail(source, i) for i in group[:OF_GROUP]), *more]


def _thumbnail(source: Source, position: int) -> str:
    name = source.name(position)
    if source.labels is not None and int(source.labels[position]) >= 0:
        name = f"{name}\n{source.classes[int(source.labels[position])]}"
    try:
        image = source.pixels(position)
    except BadImage:  # it could be read when it was audited
        return paragraph(f"{name} can no longer be read")
    return picture(small(image, 64), name, width=128, jpeg=True)
