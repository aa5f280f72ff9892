"""What training makes of an audit: which images to leave out, and which to take as one."""

from selfsup.data.audit import Audit, see
from selfsup.data.sources import Source
from selfsup.errors import UserError

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
        if see(source, i).sha256 != found.digests[audited[i]]:
            raise UserError(
                f"{names[i]!r} is not what it was when {found.data} was audited; "
                "run tools/audit.py again"
            )
    return audited
