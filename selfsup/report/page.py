"""HTML of a page and its elements, the same design for all pages; all text is escaped here."""

import re
import webbrowser
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

from selfsup.core.disk import cannot_write
from selfsup.core.errors import UserError
from selfsup.core.version import __version__
from selfsup.report.script import HASH, SCRIPT
from selfsup.report.style import STYLE

POLICY = (
    f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{HASH}'; "
    "base-uri 'none'; form-action 'none'"
)
"""A page loads nothing and runs only its own script, whatever a name in it holds."""
Light = Literal["good", "mixed", "bad", "unknown"]
LAMPS: tuple[Light, ...] = ("bad", "mixed", "good")
"""From the top."""


SHORT_CELL = 24
"""Characters of a cell of a table that stay in one line."""


class Verdict(NamedTuple):
    """What a page finds, first in a few words beside a traffic light, then in sentences."""

    light: Light
    """Which lamp is lit; of "unknown" none."""
    words: str
    sentences: Sequence[str] = ()


class Section(NamedTuple):
    """A part of a page that its menu names."""

    title: str
    elements: Sequence[str]
    """HTML."""


def page(title: str, *parts: str | Section, kind: str = "", verdict: Verdict | None = None) -> str:
    """Write a whole page.

    Args:
        title: of the page: a run, a set of images.
        parts: sections, or elements that are HTML already.
        kind: of page: "Report", "Audit".
        verdict: at the top, with the traffic light.
    """
    sections = [part for part in parts if isinstance(part, Section)]
    name = f"{kind} of {title}" if kind else title
    above = f'<p class="kind">{escape(kind)}</p>' if kind else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta HTTP-EQUIV="Content-Security-Policy" content="{POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head>\n<body>"
        '<a class="skip" href="#main">To the content</a>'
        f"<header>{above}<h1>{escape(title)}</h1>"
        f"{_traffic_light(verdict) if verdict else ''}</header>\n{_menu(sections)}"
        f'<main id="main">\n{"".join(_part(part) for part in parts)}</main>\n'
        f"<footer>selfsup {__version__}. One file: it loads and sends nothing.</footer>"
        f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _part(part: str | Section) -> str:
    if isinstance(part, str):
        return f"{part}\n"
    place = _anchor(part.title)
    title = f'<h2 id="{place}-title">{escape(part.title)}</h2>'
    inner = "\n".join(part.elements)
    return f'<section id="{place}" aria-labelledby="{place}-title">{title}\n{inner}</section>\n'


def _menu(sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    links = "".join(
        f'<li><a href="#{_anchor(each.title)}">{escape(each.title)}</a></li>' for each in sections
    )
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n'


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _traffic_light(verdict: Verdict) -> str:
    """Draw the light with its words and sentences: colour is never all that tells."""
    lamps = "".join(
        f'<circle cx="12" cy="{12 + 20 * i}" r="8" stroke="var(--{lamp})" stroke-width="1.5" '
        f'fill="{f"var(--{lamp})" if lamp == verdict.light else "none"}"/>'
        for i, lamp in enumerate(LAMPS)
    )
    sentences = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in verdict.sentences)
    return (
        f'<div class="verdict {verdict.light}"><svg viewBox="0 0 24 64" aria-hidden="true">{lamps}'
        f'</svg><div><p class="words">{escape(verdict.words)}</p>'
        f"{f'<ul>{sentences}</ul>' if sentences else ''}</div></div>"
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


def open_page(file: Path) -> None:
    """Open a page in the browser of this machine.

    Raises:
        UserError: there is none.
    """
    if not webbrowser.open(file.resolve().as_uri()):
        raise UserError(f"no browser could be started here; open {file} in one yourself")


def heading(text: str) -> str:
    """Write a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Write a paragraph."""
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Write text with its line breaks."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, *elements: str) -> str:
    """Write elements that are shown when their title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{''.join(elements)}</details>"


def side_by_side(*elements: str) -> str:
    """Lay elements out in columns where the screen is wide enough."""
    return f'<div class="wide">{"".join(f"<div>{each}</div>" for each in elements)}</div>'


def beside(narrow: str, other: str) -> str:
    """Lay an element out beside a narrow one, or below it where there is no room."""
    return f'<div class="beside"><div>{narrow}</div><div>{other}</div></div>'


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Write names with their values."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in rows)
        + "</dl>"
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "", own: int = -1
) -> str:
    """Write a table that is sorted by a click on a column's name; cells are written as text.

    Args:
        head: names of the columns.
        rows: their cells.
        caption: above it.
        own: the column that is emphasised.
    """
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f"<tr>{''.join(_cell(str(cell), i == own) for i, cell in enumerate(row))}</tr>"
        for row in rows
    )
    above = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    name = escape(caption or ", ".join(filter(None, head)), quote=True)
    return (
        f'{above}<div class="scroll" tabindex="0" role="group" aria-label="Table: {name}">'
        f'<table class="sort"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _cell(text: str, own: bool) -> str:
    """A cell of a table; numbers and short texts are not broken into lines."""
    kinds = ["own"] * own + ["short"] * (len(text) <= SHORT_CELL)
    css_class = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<td{css_class}>{escape(text)}</td>"
