"""Pages: what a step sees and what an audit found, with nothing from names let through."""

import base64
import hashlib
import os
import shutil
import socket
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_files import WHOLE
from pictures import picture as drawn

from selfsup.augment.apply import apply
from selfsup.config import LocalViewsConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.audit import audit
from selfsup.data.loader import Batch
from selfsup.data.open import open_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import Source
from selfsup.report.audit import audit_page, audit_verdict, summary
from selfsup.report.page import Light, Section, Verdict, open_page, page, table, write_page
from selfsup.report.pictures import Shown, neighbour_row, picture, small
from selfsup.report.script import SCRIPT
from selfsup.report.search import GalleryPictures
from selfsup.report.views import box_iou, contact_sheet, describe_draws
from selfsup.search.index import empty
from selfsup.training.pretrain import local_batches

EVIL = "<script>alert('x')\"&.png"
VIEWS = ViewsConfig(
    size=16, rotate=0.5, solarize=0.5, erase=0.5, quarter_turn=0.5, local=LocalViewsConfig(views=2)
)


class Tags(HTMLParser):
    """Tags that a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.code = {"script": "", "style": ""}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        last = self.lasttag  # a browser shows neither code nor styles
        if last in self.code and self.cdata_elem == last:
            self.code[last] += data
        else:
            self.text += data

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def only_its_own_script(tags: Tags) -> bool:
    """Whether a page has the script that all pages have, and nothing else that could run."""
    events = [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    return len(list(tags.named("script"))) == 1 and tags.code["script"] == SCRIPT and not events


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return images_in(tmp_path_factory.mktemp("pages"))


def images_in(root: Path) -> Source:
    """Seven images, one with an evil name, and one that cannot be read, written to a folder."""
    for i in range(6):
        drawn(i % 3, i, 40).save(root / f"{i}.png")
    drawn(0, 0, 40).save(root / EVIL)
    (root / "bad.jpg").write_bytes(WHOLE[:300])
    return open_source(str(root))


def batch_of(source: Source, step: int = 3) -> Batch:
    return local_batches(source, ShuffleSampler(8, batch=8, seed=0), VIEWS, 0)[step]


def test_a_sheet_has_a_row_for_each_image_with_all_its_views(source: Source) -> None:
    sheet = Tags(contact_sheet(source, batch_of(source), VIEWS, title="t", images=5))
    assert sum(d.get("class") == "row" for d in sheet.named("div")) == 5
    blank = sum(d.get("class") == "blank" for d in sheet.named("div"))
    assert len(list(sheet.named("img"))) == 5 * 5 - blank  # itself, two views, two local ones


def test_a_sheet_shows_the_very_pixels_of_the_step(source: Source) -> None:
    batch = batch_of(source)
    seen = apply(batch.crops[0], batch.draws[0], VIEWS.by_size()[0])
    mean, std = (torch.tensor(c)[:, None, None] for c in VIEWS.normalization)
    levels = (seen[4, 1] * std + mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0)
    image = picture(levels.numpy(), "", width=96).split('src="')[1].split('"')[0]
    assert image in contact_sheet(source, batch, VIEWS, title="t", images=8)


def test_a_sheet_tells_what_was_drawn(source: Source) -> None:
    batch = batch_of(source)
    draws = batch.draws[0]
    for i in range(8):
        position = int(batch.positions[i])
        text = describe_draws(draws, VIEWS, i, 0, None if position in batch.bad else (40, 40))
        if position in batch.bad:
            continue
        assert ("jitter" in text) == bool(draws.jitter[i, 0])
        assert ("grey" in text) == bool(draws.grey[i, 0])
        assert ("solarize" in text) == bool(draws.solarize[i, 0])
        assert ("erase" in text) == bool(draws.erase[i, 0])
        assert ("flipped" in text) == bool(draws.flip[i, 0])
        assert ("rotated" in text) == bool(draws.rotate[i, 0])
        if draws.blur[i, 0]:
            assert f"blur {draws.sigma[i, 0]:.2f} px" in text


@pytest.mark.parametrize("kind", ["views", "audit"])
def test_names_are_text_and_nothing_else(source: Source, kind: str) -> None:
    if kind == "views":
        html = contact_sheet(source, batch_of(source), VIEWS, title=EVIL, images=8)
    else:
        html = audit_page(audit(source, EVIL), source)
    tags = Tags(html)
    assert only_its_own_script(tags)
    assert EVIL in tags.text
    assert all((a.get("src") or "").startswith("data:image/") for a in tags.named("img"))
    assert "http" not in html


def test_an_image_that_cannot_be_read_has_its_place_and_its_reason(source: Source) -> None:
    sheet = Tags(contact_sheet(source, batch_of(source), VIEWS, title="t", images=8))
    assert sum(d.get("class") == "blank" for d in sheet.named("div")) == 1
    assert "the next good one stands in" in sheet.text


def test_overlap_is_intersection_over_union() -> None:
    boxes = torch.tensor(
        [
            [[0, 0, 4, 4], [0, 0, 4, 4]],
            [[0, 0, 4, 4], [2, 2, 4, 4]],
            [[0, 0, 2, 2], [5, 0, 2, 2]],
            [[0, 0, 4, 4], [0, 0, 4, 2]],
        ]
    )
    assert box_iou(boxes).tolist() == pytest.approx([1, 4 / 28, 0, 0.5])


def test_a_summary_counts_what_there_is(source: Source) -> None:
    lines = dict(summary(audit(source, "x")))
    assert lines["images"] == "8: 7 can be read, 1 cannot"
    assert lines["exact duplicates"] == "1 in 1 group"
    assert lines["height x width"] == "40 x 40 to 40 x 40, median 40 x 40"


def test_exact_and_near_duplicates_have_sections_of_their_own(tmp_path: Path) -> None:
    for name, label in (("0", "cat"), ("1", "dog")):
        (tmp_path / label).mkdir(exist_ok=True)
        drawn(int(name), 0).save(tmp_path / label / f"{name}.png")
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "dog" / "copy.png")
    drawn(1, 0).save(tmp_path / "dog" / "again.jpg", quality=95)
    images = open_source(str(tmp_path))
    report = audit(images, "x")
    tags = Tags(audit_page(report, images).split("<main")[1])  # its menu has the titles, too
    titles = [
        "One picture in two classes",
        "Exact duplicates: equal files",
        "Near duplicates: the same picture in other files",
    ]
    places = [tags.text.find(title) for title in titles]
    assert -1 < places[0] < places[1] < places[2]
    exact, near = tags.text[places[1] : places[2]], tags.text[places[2] :]
    assert "dog/copy.png" in exact
    assert "again.jpg" not in exact
    assert "dog/again.jpg" in near
    assert "copy.png" not in near
    assert "Duplicates in more than one split" not in tags.text


def test_pictures_of_one_and_five_channels_are_shown() -> None:
    for channels in (1, 5):
        assert "<img" in picture(np.zeros((4, 4, channels), np.uint8), "x", width=9)


def test_cells_are_escaped() -> None:
    assert "&lt;b&gt;" in table(["<i>"], [["<b>"]])
    assert "<i>" not in table(["<i>"], [["<b>"]])


def test_a_page_is_smaller_than_its_images_are_many(source: Source, tmp_path: Path) -> None:
    assert len(contact_sheet(source, batch_of(source), VIEWS, title="t", images=8)) < 200_000


def test_names_that_are_no_text_can_be_written(tmp_path: Path) -> None:
    write_page(tmp_path / "deep" / "x.html", page("bad \udcff name"))
    assert "bad \\udcff name" in (tmp_path / "deep" / "x.html").read_text()


@pytest.mark.parametrize(
    "data", ["cifar10", "cifar10 + {0}", "torchvision:CIFAR10:{0}", "{0}/pipe"]
)
def test_an_index_from_elsewhere_fetches_and_waits_for_nothing(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: asked.append(given))
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    rows = {"name": ["a"], "data": [data.format(tmp_path)], "split": [""], "label": [""]}
    index = replace(empty(tmp_path, "model", "weights", 8), rows=rows)
    assert GalleryPictures(index, 3).pixels(0) is None
    assert not asked
    assert not (tmp_path / "data").exists()


def test_a_page_may_load_nothing_and_run_its_own_script_alone() -> None:
    html = page("title")
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [t["content"] for t in Tags(html).named("meta") if t.get("http-equiv")]
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    for writes_html in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert writes_html not in script


@pytest.mark.parametrize(("light", "lit"), [("good", 1), ("mixed", 1), ("bad", 1), ("unknown", 0)])
def test_a_traffic_light_has_one_lamp_lit_and_says_it_in_words(light: Light, lit: int) -> None:
    tags = Tags(page(EVIL, verdict=Verdict(light, "in words", [EVIL]), kind="Report"))
    lamps = [tag["fill"] for tag in tags.named("circle")]
    assert len(lamps) == 3
    assert [fill for fill in lamps if fill != "none"] == [f"var(--{light})"] * lit
    assert "in words" in tags.text


def test_a_menu_leads_to_each_section() -> None:
    tags = Tags(page("x", Section("Is it good?", []), Section("How was it made?", [])))
    links = [str(tag["href"]) for tag in tags.named("a")]
    assert links == ["#main", "#is-it-good", "#how-was-it-made"]
    assert {link[1:] for link in links} <= {t.get("id") for _, t in tags.tags}


def test_neighbours_are_marked_in_colour_in_signs_and_in_words() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    shown = [Shown(image, "query", "query"), Shown(image, f"0.9\n{EVIL}", "right", EVIL)]
    tags = Tags(neighbour_row([*shown, Shown(image, "0.8", "wrong"), Shown(None, "0.7", "wrong")]))
    assert [t.get("class") for t in tags.named("figure")] == ["query", "right", "wrong", None]
    alts = [t["alt"] for t in tags.named("img")]
    assert alts == ["query: query", f"right neighbour: 0.9, {EVIL}", "wrong neighbour: 0.8"]
    assert "\u2713 0.9" in tags.text
    assert "\u2717 0.8" in tags.text
    assert "\u2717 0.7\ncannot be shown" in tags.text


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((40, 60, 3), (40, 60, 3)), ((400, 600, 1), (160, 240, 1)), ((200, 210, 5), (100, 105, 5))],
)
def test_a_small_picture_has_at_most_twice_the_side(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert small(np.full(shape, 7, np.uint8), 80).shape == expected
    assert (small(np.full(shape, 7, np.uint8), 80) == 7).all()


def test_the_lights_of_an_audit_are_those_of_its_worst_find(source: Source) -> None:
    found = audit(source, "x")  # a broken file and a copy
    assert audit_verdict(found).light == "bad"
    stops = "1 image cannot be read, 12.5% of them; training stops above --max-bad, by default 1%."
    assert audit_verdict(found).sentences[0] == stops
    few = audit_verdict(replace(found, names=["a.png"] * 100))  # 1 %
    assert few.light == "mixed"
    assert few.sentences[0] == "1 image cannot be read; training takes the next good one."
    none = audit_verdict(replace(found, bad=dict.fromkeys(range(8), "broken")))
    assert (none.light, none.words) == ("bad", "No image can be read")
    clean = replace(found, bad={}, near=[], exact=[])
    assert audit_verdict(clean).light == "good"
    for serious in ({"leaks": [[0, 1]]}, {"two_classes": [[0, 1]]}):
        assert audit_verdict(replace(clean, **serious)).light == "bad"  # type: ignore[arg-type]


def test_a_page_is_opened_in_the_browser_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def opens(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", opens)
    open_page(tmp_path / "a b.html")
    assert opened == [f"file://{tmp_path}/a%20b.html"]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    with pytest.raises(UserError, match=r"no browser could be started here; open .*x.html in one"):
        open_page(tmp_path / "x.html")
