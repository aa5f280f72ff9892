"""HTML of a page and its elements; all text is escaped here."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from selfsup.core.disk import cannot_write

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
       padding: 0 1rem; color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top;
         border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere }
.grid { display: flex; flex-wrap: wrap; gap: .8rem }
figure { margin: 0 } figure img { display: block; image-rendering: pixelated }
figcaption { font: 11px/1.35 ui-monospace, monospace; color: #444; white-space: pre-line;
             overflow-wrap: anywhere }
.blank { aspect-ratio: 1; border: 1px dashed #888 }
.chart { width: 420px }
.chart figcaption { font: 13px/1.4 system-ui, sans-serif; color: #1c1c1c }
.chart svg, .map { font: 11px system-ui, sans-serif }
.map { border: 1px solid #ddd; max-width: 100% }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem }
.legend { font-size: 12px } .legend span { margin-right: 1rem; white-space: nowrap }
.verdict p { font-size: 1.1rem; border-left: 4px solid #1c1c1c; padding-left: .8rem }
.right img { outline: 3px solid #26713a; margin-bottom: 6px }
.wrong img { outline: 3px dashed #c01c28; margin-bottom: 6px }
pre { font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere }
.row { display: flex; flex-wrap: wrap; gap: .8rem; padding: .6rem 0; border-top: 1px solid #ddd }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A page loads nothing and runs nothing, whatever a name in it holds."""


def page(title: str, *elements: str) -> str:
    """Write a whole page of elements, which are HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta HTTP-EQUIV="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(elements) + "\n</body></html>\n"
    )


def write_page(file: Path, html: str) -> None:
    """Write a page to disk; bytes of names that are not text are shown as numbers.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise cannot_write(file, error.errno or 0, error) from None


def heading(text: str) -> str:
    """Write the heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Write a paragraph."""
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Write text with its line breaks."""
    return f"<pre>{escape(text)}</pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; cells are written as text."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def picture(
    image: np.ndarray, caption: str = "", *, width: int, jpeg: bool = False, kind: str = ""
) -> str:
    """Embed an image in the page, without the metadata of its file.

    Args:
        image: uint8 [h, w, c] of 1, 3 or more channels, of which three are shown.
        caption: below it.
        width: on the screen, in pixels.
        jpeg: smaller, for thumbnails of photographs.
        kind: right or wrong, for a frame around it.
    """
    levels = np.ascontiguousarray(image[..., 0] if image.shape[2] < 3 else image[..., :3])
    out = io.BytesIO()
    coding = "jpeg" if jpeg else "png"
    Image.fromarray(levels).save(out, coding, **({"quality": 80} if jpeg else {}))
    data = base64.b64encode(out.getvalue()).decode()
    alt = escape(caption.split("\n")[0], quote=True)
    shown = f'<img src="data:image/{coding};base64,{data}" width="{width}" alt="{alt}">'
    return _figure(shown, caption, width, kind)


def small(image: np.ndarray, side: int) -> np.ndarray:
    """Take every n-th pixel, so that the shorter side is at most twice `side`."""
    step = max(1, min(image.shape[:2]) // side)
    return image[::step, ::step]


def blank(caption: str, *, width: int) -> str:
    """Draw an empty frame in place of an image."""
    return _figure('<div class="blank"></div>', caption, width)


def _figure(shown: str, caption: str, width: int, kind: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>"
    css_class = f' class="{kind}"' if kind else ""
    return f'<figure{css_class} style="width: {width}px">{shown}{below}</figure>'


def grid(pictures: Iterable[str], kind: str = "grid") -> str:
    """Lay pictures out side by side; kind "row" frames the pictures of one subject."""
    return f'<div class="{kind}">' + "".join(pictures) + "</div>"
