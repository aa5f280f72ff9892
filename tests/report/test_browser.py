"""Pages in a real browser: silent, nothing cut, dark and light, by mouse, keyboard and on paper."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from report.test_pages import EVIL, VIEWS, batch_of, images_in
from report.test_run import HEALTHY, record, run_of, source_of
from report.test_story import BETTER, SAME, measured

from selfsup.data.audit import audit
from selfsup.report.audit import audit_page
from selfsup.report.embeddings import failures, learnt, with_neighbours
from selfsup.report.page import write_page
from selfsup.report.run import ImageParts, read_run, report
from selfsup.report.search import search_page
from selfsup.report.style import COLOURS, DARK, LIGHT
from selfsup.report.views import contact_sheet
from selfsup.search.index import add, empty
from selfsup.search.query import Hit, SearchResult

LONG = "a-name-without-any-place-to-break-it-" * 6


def run_with_all(root: Path, name: str) -> Any:
    """A run with a log, unreadable images and two evaluations."""
    log = "".join(json.dumps(HEALTHY | {"step": i, "loss": 9 - i / 9}) + "\n" for i in range(1, 60))
    files = {
        "log__jsonl": log,
        "bad_images__csv": f'path,reason\n"{EVIL}",broken\n{LONG}.png,broken\n',
        "about__json": json.dumps({"command": f"recipe --data '{EVIL}' {LONG}"}),
        "knn__json": json.dumps(record(0.1, 0.2)),
        "retrieval__json": json.dumps(measured(BETTER, SAME, BETTER, BETTER, data=LONG)),
    }
    return read_run(run_of(root / name, **files))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, with names that are evil or long."""
    root, folder = tmp_path_factory.mktemp("pages"), tmp_path_factory.mktemp("images")
    source = images_in(folder)
    images = with_neighbours(*source_of(60))
    parts = ImageParts(
        learnt(images, seed=0, tsne=False), failures(images, root / "suspects.csv"), []
    )
    runs = [run_with_all(root, name) for name in ("one", LONG)]
    rows = {"name": ["0.png", "gone"], "data": [str(folder)] * 2, "split": [""] * 2}
    rows |= {"label": ["", LONG], "sha256": ["", ""]}
    index = add(empty(root, "model", "weights", 8), np.eye(2, dtype=np.float32), rows)
    hits = [Hit("0.png", "", 0.93, True, 0), Hit("gone", LONG, 0.5, False, 1)]
    query = str(folder / "1.png")
    found = SearchResult(index, (query,), [hits], 0.9, itself=[["0.png"]])
    html = {
        "report": report(runs[:1], parts),
        "comparison": report(runs),
        "audit": audit_page(audit(source, EVIL), source),
        "views": contact_sheet(source, batch_of(source), VIEWS, title=LONG, images=4),
        "search": search_page(found),
    }
    for name, text in html.items():
        write_page(root / f"{name}.html", text)
    return {name: root / f"{name}.html" for name in html}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["report", "comparison", "audit", "views", "search"])
def test_a_page_is_silent_and_whole_at_any_width_in_light_and_dark(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    assert pages[kind].stat().st_size < 3e6
    backgrounds = {}
    for width in (1280, 400):
        for scheme in ("light", "dark"):
            browser.open(pages[kind], width=width, scheme=scheme)
            root = "document.documentElement"
            assert browser.run(f"{root}.scrollWidth - {root}.clientWidth") == 0
            assert browser.run("[...document.images].every((i) => i.closest('dialog') || i.alt)")
            backgrounds[scheme] = browser.run("getComputedStyle(document.body).backgroundColor")
    assert backgrounds["light"] != backgrounds["dark"]
    assert browser.noises == []


@pytest.mark.slow
def test_a_table_is_sorted_by_a_click_on_a_column(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["audit"], width=1280, scheme="light")
    browser.run(
        """{ const body = document.querySelector("table").tBodies[0];
        body.replaceChildren(...[["b", "10"], ["a", "9.5"], ["c", "1,000"]].map((cells) => {
          const row = document.createElement("tr");
          for (const text of cells) row.insertCell().textContent = text;
          return row; })); }"""
    )
    cells = "[...document.querySelectorAll('table tbody tr')].map((r) => r.cells[0].textContent)"
    press = "document.querySelectorAll('th button')[{}].click()"
    for column, order in ((1, "cba"), (1, "abc"), (0, "abc"), (0, "cba")):
        browser.run(press.format(column))
        assert "".join(browser.run(cells)) == order
    assert browser.run("document.querySelector('th[aria-sort]').ariaSort") == "descending"


@pytest.mark.slow
def test_an_image_is_enlarged_by_mouse_and_by_keyboard(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["report"], width=1280, scheme="light")
    browser.run("document.querySelector('figure img').click()")
    assert browser.run("document.querySelector('dialog').open")
    assert browser.run("document.querySelector('dialog img').alt").startswith("query")
    press(browser, "ArrowRight")
    assert "neighbour" in browser.run("document.querySelector('dialog img').alt")
    press(browser, "Escape")
    assert not browser.run("document.querySelector('dialog').open")
    browser.until("document.activeElement.alt?.includes('neighbour')")
    press(browser, "ArrowLeft")
    press(browser, "Enter")
    assert browser.run("document.querySelector('dialog').open")
    assert browser.noises == []


@pytest.mark.slow
def test_points_lines_and_classes_tell_their_names(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["report"], width=1280, scheme="light")
    browser.run("document.querySelector('.chart svg').focus()")
    press(browser, "ArrowLeft")
    assert browser.run("document.querySelector('#tip').textContent") == "step 58\nLoss 2.556"
    hover = "{}.dispatchEvent(new PointerEvent('pointermove', {{bubbles: true}}))"
    browser.run(hover.format("document.querySelector('.map use')"))
    assert browser.run("document.querySelector('#tip').textContent") == "dog image 0"
    browser.run("document.querySelector('.legend button').click()")
    assert browser.run("document.querySelectorAll('.map use.chosen').length") == 29
    assert browser.noises == []


@pytest.mark.slow
def test_what_is_folded_is_printed(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"], width=1280, scheme="dark")
    count = "[...document.querySelectorAll('details')].filter((d) => d.open).length"
    assert browser.run(count) == 0
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(count) >= 3
    browser.send("Emulation.setEmulatedMedia", media="print")
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    browser.send("Emulation.setEmulatedMedia", media="")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(count) == 0


def press(browser: Browser, key: str) -> None:
    """Press and release a key."""
    code = {"Escape": 27, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37}[key]
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        browser.send(
            "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
        )


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_of_text_has_enough_contrast(scheme: str) -> None:
    colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
    texts = ["ink", "soft", "link", "good", "mixed", "bad", "unknown"]
    texts += [f"c{i}" for i in range(COLOURS)]
    for behind in ("bg", "panel"):
        for text in texts:
            low, high = sorted(luminance(colours[name]) for name in (behind, text))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, behind)
