"""Images in a page: a picture with its caption, and a query with its marked neighbours."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

Mark = Literal["", "query", "right", "wrong", "same", "unmarked"]
SIGNS: dict[Mark, str] = {"right": "\u2713 ", "wrong": "\u2717 ", "same": "\u2248 "}
"""Before the caption of a neighbour: a mark that needs no colour."""
ALTS: dict[Mark, str] = {
    "query": "query",
    "right": "right neighbour",
    "wrong": "wrong neighbour",
    "same": "neighbour that is taken for the same",
    "unmarked": "neighbour",
}
SMOOTH = 64
"""Shorter side from which on an enlarged image is smoothed; below it pixels are shown."""


class Shown(NamedTuple):
    """An image as a page shows it."""

    image: np.ndarray | None
    """uint8 [h, w, c]; None if it cannot be read or is no longer there."""
    caption: str
    mark: Mark = ""
    name: str = ""
    """Shown on hover."""


def neighbour_row(shown: Sequence[Shown], title: str = "") -> str:
    """Draw a query and its neighbours in a row, each neighbour marked right or wrong.

    Args:
        shown: the query first; `small` images keep the page small.
        title: above the row.
    """
    cells = []
    for each in shown:
        caption = SIGNS.get(each.mark, "") + each.caption
        alt = f"{ALTS.get(each.mark, 'image')}: {each.caption}".replace("\n", ", ")
        if each.image is None:
            cells.append(blank(f"{caption}\ncannot be shown", width=0))
            continue
        jpeg = min(each.image.shape[:2]) > 48
        cells.append(
            picture(
                each.image, caption, width=0, jpeg=jpeg, kind=each.mark, alt=alt, name=each.name
            )
        )
    return grid(cells, "row", title)


def picture(
    image: np.ndarray,
    caption: str = "",
    *,
    width: int,
    jpeg: bool = False,
    kind: str = "",
    alt: str = "",
    name: str = "",
) -> str:
    """Embed an image in the page, without the metadata of its file.

    Args:
        image: uint8 [h, w, c] of 1, 3 or more channels, of which three are shown.
        caption: below it.
        width: on the screen, in pixels; 0 for that of its place in a grid.
        jpeg: smaller, for thumbnails of photographs.
        kind: right, wrong or query, for a frame around it.
        alt: what it shows, for those who cannot see it; by default the caption's first line.
        name: shown on hover.
    """
    levels = np.ascontiguousarray(image[..., 0] if image.shape[2] < 3 else image[..., :3])
    out = io.BytesIO()
    coding = "jpeg" if jpeg else "png"
    Image.fromarray(levels).save(out, coding, **({"quality": 80} if jpeg else {}))
    data = base64.b64encode(out.getvalue()).decode()
    words = escape(alt or caption.split("\n")[0] or "image", quote=True)
    smooth = ' class="smooth"' if min(image.shape[:2]) > SMOOTH else ""
    size = f'width="{width}" ' if width else ""
    shown = f'<img src="data:image/{coding};base64,{data}"{smooth} {size}alt="{words}">'
    return _figure(shown, caption, width, kind, name)


def small(image: np.ndarray, side: int) -> np.ndarray:
    """Scale an image down, so that its shorter side is at most twice `side`; pages stay small."""
    height, width, channels = image.shape
    factor = 2 * side / min(height, width)
    if factor >= 1:
        return image
    if channels not in (1, 3, 4):
        step = -(-min(height, width) // (2 * side))
        return image[::step, ::step]
    whole = Image.fromarray(image[..., 0] if channels == 1 else image)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    scaled = np.asarray(whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))
    return scaled.reshape(size[1], size[0], channels)


def blank(caption: str, *, width: int) -> str:
    """Draw an empty frame in place of an image."""
    return _figure('<div class="blank"></div>', caption, width)


def _figure(shown: str, caption: str, width: int, kind: str = "", name: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>"
    css_class = f' class="{kind}"' if kind else ""
    hover = f' title="{escape(name, quote=True)}"' if name else ""
    size = f' style="width: {width}px"' if width else ""
    return f"<figure{css_class}{hover}{size}>{shown}{below}</figure>"


def grid(pictures: Iterable[str], kind: str = "grid", title: str = "") -> str:
    """Lay pictures out side by side; kind "row" frames the pictures of one subject."""
    above = f'<p class="title">{escape(title)}</p>' if title else ""
    return f'<div class="{kind}">{above}{"".join(pictures)}</div>'


def rows(each: Iterable[str], kind: str = "rows") -> str:
    """Lay rows of neighbours out, in columns where the screen is wide enough.

    Rows of kind "rows found" have the whole width, for any number of neighbours.
    """
    return f'<div class="{kind}">{"".join(each)}</div>'
