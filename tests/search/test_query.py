"""A search with an image that is in the index, and thresholds for galleries of any size."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import ROOT
from PIL import Image
from terminal import PYTHON, in_terminal

from selfsup.config import EncoderConfig, IndexConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import build, export
from selfsup.encoders.thresholds import read_threshold
from selfsup.evaluate.indexing import build_index
from selfsup.evaluate.verification import Curve, gallery_thresholds
from selfsup.report.search import caption, search_page
from selfsup.search.query import Hit, search_index


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an index of twelve images."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    encoder = build(EncoderConfig(name="test_resnet", stem="standard"), 32)
    export(encoder, folder / "encoder", ViewsConfig(size=32))
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    build_index(IndexConfig(model=str(folder), data=str(folder / "images"), workers=0))
    return folder


@pytest.mark.parametrize("k", [1, 5, 11, 12, 100])
def test_the_query_itself_is_no_hit(run: Path, k: int) -> None:
    result = search_index(run, [run / "images" / "3.png"], k=k)
    names = [hit.name for hit in result.hits[0]]
    assert "3.png" not in names
    assert len(set(names)) == len(names) == min(k, 11)
    assert result.itself == [["3.png"]]


@pytest.mark.parametrize("threshold", [-1.01, 7.0, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(run: Path, threshold: float) -> None:
    with pytest.raises(UserError, match=f"from -1 to 1, not {threshold}"):
        search_index(run, [run / "images" / "3.png"], k=1, threshold=threshold)


def test_the_command_breaks_no_word_and_tells_once_that_no_threshold_is_known(run: Path) -> None:
    command: list[str | Path] = [PYTHON, ROOT / "tools" / "search.py", ".", "-k", "1", "--page", ""]
    queries = [Path("images") / f"{i}.png" for i in range(2)]
    plain = in_terminal([*command, *queries], run, columns=40)
    assert plain.status == 0, plain.lines
    assert [line for line in plain.lines if line.startswith("images/")] == [str(q) for q in queries]
    assert plain.lines[-2:] == ["There is no threshold yet; selfsup", "  verify measures one."]
    known = in_terminal([*command, *queries, "--threshold", "-1"], run, columns=40)
    assert "images/0.png  known: nearest" in known.lines[0]
    assert known.widest <= 40


def test_a_copy_of_a_file_elsewhere_is_the_query_itself_too(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "images" / "3.png", tmp_path / "other.png")
    result = search_index(run, [tmp_path / "other.png"], k=2)
    assert result.itself == [["3.png"]]
    assert "3.png" not in [hit.name for hit in result.hits[0]]


def test_several_queries_each_leave_themselves_out(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(9).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "new.png")
    queries = [run / "images" / "0.png", tmp_path / "new.png", run / "images" / "7.png"]
    result = search_index(run, queries, k=12)
    assert result.itself == [["0.png"], [], ["7.png"]]
    assert [len(hits) for hits in result.hits] == [11, 12, 11]


def similar_pairs(n: int) -> Curve:
    """n pairs of two labels, evenly from 0 to 1, and as many of one label above them."""
    different = torch.linspace(0, 1, n)
    similarity = torch.cat([different, different + 1])
    return Curve(similarity, torch.arange(2 * n) >= n)


@pytest.mark.parametrize(("gallery", "accepted"), [(1, 100), (10, 10), (100, 1), (7, 10), (99, 1)])
def test_the_threshold_accepts_as_few_pairs_as_the_gallery_has_images(
    tmp_path: Path, gallery: int, accepted: int
) -> None:
    curve = similar_pairs(10000)
    thresholds = gallery_thresholds(curve, 0.01)
    (tmp_path / "verify.json").write_text(json.dumps({"details": {"thresholds": thresholds}}))
    threshold = read_threshold(tmp_path, gallery)
    assert threshold is not None
    assert int((curve.false > threshold).sum()) == accepted


def test_a_gallery_larger_than_pairs_can_tell_has_the_highest_threshold(tmp_path: Path) -> None:
    curve = similar_pairs(100)
    thresholds = gallery_thresholds(curve, 0.01)
    (tmp_path / "verify.json").write_text(json.dumps({"details": {"thresholds": thresholds}}))
    assert read_threshold(tmp_path, 10**9) == float(curve.false[0])
    assert read_threshold(tmp_path, 1) == curve.at_far(0.01).threshold


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("verify.json", {"facts": {"threshold": 0.7}}),
        ("bundle.json", {"threshold": 0.7}),
        ("bundle.json", {"threshold": 0.7, "figures": {"verify": {"figures": {}}}}),
        (
            "bundle.json",
            {"figures": {"verify": {"details": {"thresholds": {"1": 0.2, "50": 0.7}}}}},
        ),
    ],
)
def test_records_of_any_age_have_a_threshold(tmp_path: Path, name: str, content: object) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert read_threshold(tmp_path, 30) == 0.7


def test_a_threshold_measured_after_indexing_counts(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    query = run / "images" / "0.png"
    assert search_index(run, [query]).threshold is None
    folder = tmp_path / "run"
    record = json.loads((folder / "index" / "index.json").read_text())
    (folder / "index" / "index.json").write_text(json.dumps(record | {"model": str(folder)}))
    thresholds = {"details": {"thresholds": {"1": -1.0, "10": 0.5, "20": 2.0}}}
    (folder / "verify.json").write_text(json.dumps(thresholds))
    result = search_index(folder, [query], k=3)
    assert result.threshold == 2.0  # of 12 images
    assert "For one pair it would be -1.000" in " ".join(result.about_threshold)
    assert not any(hit.same for hit in result.hits[0])
    given = search_index(folder, [query], k=3, threshold=-1.0)
    assert all(hit.same for hit in given.hits[0])


@pytest.mark.parametrize(
    ("details", "light", "words"),
    [
        (None, "unknown", "There is no threshold yet; selfsup verify measures one."),
        ({"1": 0.1, "20": -1.0, "50": 0.9}, "good", "Among 12 images at most 1.0% of searches"),
        ({"1": 0.1, "20": 2.0, "50": 2.1}, "mixed", "Among 12 images at most 1.0% of searches"),
        ({"1": 0.1, "5": 0.5, "20": -1.0}, "mixed", "with pairs that suffice for 5 images"),
        ({"1": -1.0}, "mixed", "with pairs that suffice for 1 image, and the index holds 12"),
    ],
)
def test_a_search_says_what_its_threshold_stands_for_in_such_a_gallery(
    run: Path, tmp_path: Path, details: dict[str, float] | None, light: str, words: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = tmp_path / "run"
    record = json.loads((folder / "index" / "index.json").read_text())
    (folder / "index" / "index.json").write_text(json.dumps(record | {"model": str(folder)}))
    if details is not None:
        verified = {"details": {"thresholds": details}, "settings": {"keep": 0.01}}
        (folder / "verify.json").write_text(json.dumps(verified))
    result = search_index(folder, [run / "images" / "0.png"], k=3)
    assert words in " ".join(result.about_threshold)
    html = search_page(result)
    assert f'<div class="verdict {light}">' in html
    assert words in html
    marks = html.count('<figure class="same"'), html.count('<figure class="unmarked"')
    assert marks == ((3, 0) if details and result.threshold == -1 else (0, 3))


def test_a_threshold_that_only_the_index_has_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "index", tmp_path / "index")
    record = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps(record | {"threshold": 0.3}))
    result = search_index(tmp_path / "index", [run / "images" / "0.png"])
    assert result.threshold == 0.3
    assert "from when it was made" in " ".join(result.about_threshold)
    given = search_index(tmp_path / "index", [run / "images" / "0.png"], threshold=0.5)
    assert given.about_threshold == ["Images above a cosine of 0.500 are taken for the same thing."]


@pytest.mark.parametrize(
    ("label", "words"), [("cat", "\u2713 its class"), ("dog", "\u2717 another class"), ("", "")]
)
def test_a_hit_says_whether_it_is_of_the_query_s_class(label: str, words: str) -> None:
    hit = Hit("a.png", label, 0.91, True, 0)
    expected = ["0.910 same", label or "a.png", *([words] if words else [])]
    assert caption(hit, "cat").split("\n") == expected
    assert caption(hit) == f"0.910 same\n{label or 'a.png'}"
