"""What a report tells: of which images, against what, and that it does not contradict itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report.test_pages import EVIL, Tags
from report.test_run import HEALTHY, record, run_of, told

from selfsup.data.sources import ArraySource
from selfsup.evaluate.features import Features
from selfsup.report.bars import Bar, bar_of, bars
from selfsup.report.comparison import compared
from selfsup.report.curves import chart
from selfsup.report.embeddings import failures, learnt, with_neighbours
from selfsup.report.figures import short_names
from selfsup.report.run import Files, ImageParts, read_run, report
from selfsup.report.sections import shown_images
from selfsup.report.seen import ImageSet, is_seen, trained_on
from selfsup.report.verdict import comparisons, verdict

BETTER, SAME, WORSE = (0.1, 0.3), (-0.1, 0.3), (-0.3, -0.1)


def measured(*margins: tuple[float, float], data: str = "test", queries: int = 9) -> dict[str, Any]:
    """What a tool writes, with a figure for each margin."""
    one = record(0, 1)
    figure = {"value": 0.6, "low": 0.5, "high": 0.7}
    names = [f"Recall@{i + 1}" for i in range(len(margins))]
    return one | {
        "tool": "retrieval",
        "figures": dict.fromkeys(names, figure),
        "baselines": {"pixels": dict.fromkeys(names, figure | {"value": 0.4})},
        "margins": {
            name: {"value": sum(m) / 2, "low": m[0], "high": m[1]}
            for name, m in zip(names, margins, strict=True)
        },
        "facts": {"queries": queries},
        "settings": {"data": data},
    }


@pytest.mark.parametrize(
    ("margins", "light", "words"),
    [
        ([BETTER, BETTER], "good", "Better than every baseline"),
        ([BETTER, SAME], "mixed", "Better than every baseline in 1 of 2 figures"),
        ([SAME, SAME], "mixed", "Not proven better than the baselines"),
        ([BETTER, BETTER, WORSE], "mixed", "in 2 of 3 figures, worse than one in 1"),
        ([BETTER, WORSE, WORSE], "bad", "in 1 of 3 figures, worse than one in 2"),
        ([SAME, WORSE], "bad", "Worse than a baseline in 1 of 2 figures"),
        ([WORSE, WORSE], "bad", "Worse than a baseline"),
    ],
)
def test_the_light_counts_every_figure_of_the_table(margins: Any, light: str, words: str) -> None:
    judged = verdict([HEALTHY], [measured(*margins)])
    assert judged.light == light
    assert words in judged.words
    everything = told(judged)
    for each in comparisons([measured(*margins)]):
        assert each.name in everything


def test_a_warning_of_a_tool_stands_first_and_takes_the_green_light_away() -> None:
    leaked = measured(BETTER) | {"warnings": ["all test images are in train"]}
    judged = verdict([HEALTHY], [leaked])
    assert judged.light == "mixed"
    assert judged.sentences[0] == "Warning: all test images are in train"


@pytest.mark.parametrize("log", [[HEALTHY | {"state": "collapsed"}], [HEALTHY | {"std": 0.001}]])
def test_a_run_that_ended_ill_and_was_not_measured_is_not_merely_unmeasured(log: Any) -> None:
    assert verdict(log, []).light == "mixed"
    assert verdict([HEALTHY], []).light == "unknown"
    assert verdict([HEALTHY], [measured(BETTER)], unfinished="step 3").light == "mixed"


def chain(root: Path) -> Path:
    """A fine-tuned run that began with a run that began with another; its folder."""
    before = ""
    for name in ("first", "second", "third"):
        folder = root / name
        folder.mkdir()
        (folder / "config.yaml").write_text(
            f"data: {root}/{name}.npz\nsplit: ''\ninit: '{before}'\n"
        )
        before = str(folder)
    return Path(before)


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ("first.npz", True),
        ("second.npz", True),
        ("third.npz", True),
        ("new.npz", False),
        ("new.npz + first.npz * 2", True),
        ("sub/../third.npz", True),
    ],
)
def test_images_of_earlier_runs_were_seen_too(tmp_path: Path, data: str, seen: bool) -> None:
    config = read_run(chain(tmp_path)).config
    given = " + ".join(str(tmp_path / name) for name in data.split(" + "))
    assert is_seen(ImageSet(given), trained_on(config)) == seen


@pytest.mark.parametrize(
    ("one", "other", "seen"), [("a", "b", False), ("a", "a", True), ("", "a", True)]
)
def test_another_split_of_a_manifest_was_not_seen(one: str, other: str, seen: bool) -> None:
    assert is_seen(ImageSet("m.csv", one), [ImageSet("m.csv", other)]) == seen


def test_a_run_that_began_with_itself_ends() -> None:
    assert len(trained_on({"data": "x", "init": "nowhere"})) == 1


def test_figures_of_training_images_are_named_so(tmp_path: Path) -> None:
    of_training = measured(BETTER, data="images")
    run = read_run(run_of(tmp_path / "a", retrieval__json=json.dumps(of_training)))
    tags = Tags(report([run]))
    assert "Retrieval on images, which training has seen" in tags.text
    assert "Warning: the figures of retrieval are of images that training has seen" in tags.text
    assert "but see the warning" in tags.text
    new = json.dumps(measured(BETTER, data="others"))
    text = Tags(report([read_run(run_of(tmp_path / "b", retrieval__json=new))])).text
    assert "Retrieval on others" in text
    assert "has seen" not in text


def arrays(root: Path, name: str, classes: int) -> str:
    labels = np.arange(2 * classes) // 2
    file = root / name
    np.savez(file, images=np.zeros((len(labels), 8, 8, 3), np.uint8), labels=labels)
    return str(file)


def test_a_report_shows_images_that_training_has_not_seen_if_there_are_any(tmp_path: Path) -> None:
    train, test, probe = (arrays(tmp_path, f"{n}.npz", 100) for n in ("train", "test", "probe"))
    run = Files(tmp_path, "run", {}, [], [], [])
    config: dict[str, Any] = {"data": train, "seed": 0}

    def about(settings: dict[str, Any], *records: Any, given: ImageSet | None = None) -> str:
        files = replace(run, records=list(records))
        return shown_images(files, settings, given, channels=3)[1]

    assert "images of training itself" in about(config)
    assert f"of {test}, which training has not seen" in about(config, measured(BETTER, data=test))
    assert "of training itself" in about(config, measured(BETTER, data=train))
    assert "of training itself" in about(config, measured(BETTER, data="no/longer/there"))
    held = about(config | {"probe": {"held_out": 0.1}})
    assert held == "These are images of 10 classes that were held out of training."
    of_probe = about(config | {"probe": {"data": probe}}, measured(BETTER, data=test))
    assert f"of {probe}, which training has not seen" in of_probe
    assert "which training has seen, too" in about(config, given=ImageSet(train))


def test_confused_classes_are_counted() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    x = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0, 1.01], [0.02, 1], [-1, 0]])
    source = ArraySource(np.zeros((6, 8, 8, 3), np.uint8), labels, ["cat", EVIL, "7"])
    images = with_neighbours(source, Features(x, labels, torch.arange(6), source.classes, 0))
    # image 2 lies among class 1, image 5 nearest to it
    text = Tags("".join(failures(images, Path("/dev/null")))).text
    assert "The nearest image is of another class for" in text
    assert f"cat{EVIL}133%" in text
    assert "class 7" in text


def test_runs_measured_on_the_same_images_share_a_table_and_others_do_not() -> None:
    high = measured(BETTER)
    low = measured(BETTER)
    low["figures"] = {"Recall@1": {"value": 0.3, "low": 0.2, "high": 0.4}}
    assert compared({"a": [high], "b": [low]})[:2] == ("good", "a leads")
    near = measured(BETTER)
    near["figures"] = {"Recall@1": {"value": 0.55, "low": 0.45, "high": 0.65}}
    judged = compared({"a": [high], "b": [near]})
    assert judged[:2] == ("mixed", "No run leads clearly")
    assert "intervals of Recall@1 overlap: a 0.600 [0.50, 0.70], b 0.550" in judged.sentences[0]
    for other in (measured(BETTER, data="x"), measured(BETTER, queries=8)):
        judged = compared({"a": [high], "b": [other]})
        assert judged[:2] == (
            "bad",
            "Not comparable: no two runs were measured on the same images",
        )
        assert "Only b has Retrieval on" in " ".join(judged.sentences)
    assert compared({"a": [], "b": []}).light == "unknown"


def test_leads_of_two_runs_are_no_lead() -> None:
    low = {"value": 0.3, "low": 0.2, "high": 0.4}
    ones = [measured(BETTER), measured(BETTER, data="x") | {"figures": {"Recall@1": low}}]
    others = [measured(BETTER) | {"figures": {"Recall@1": low}}, measured(BETTER, data="x")]
    judged = compared({"a": ones, "b": others})
    assert judged[:2] == ("mixed", "a and b lead in some figures, not in all")


def test_a_report_on_large_photographs_stays_below_three_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = rng.integers(0, 255, (60, 12, 16, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(x).resize((640, 480))) for x in shapes]
    images = np.stack(large) // 2 + rng.integers(0, 40, (60, 480, 640, 3), dtype=np.uint8)
    labels = torch.arange(60) % 6
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    source = ArraySource(images, labels, [f"class-{i}" for i in range(6)])
    embedded = with_neighbours(source, Features(x, labels, torch.arange(60), source.classes, 0))
    parts = ImageParts(
        learnt(embedded, seed=0, tsne=False), failures(embedded, tmp_path / "suspects.csv"), []
    )
    html = report([read_run(run_of(tmp_path / "a"))], parts)
    assert html.count("<img") > 120
    assert len(html) < 3e6


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_axis_of_a_fraction_ends_at_one(value: float) -> None:
    html = chart("Active", {"active": [(1, value), (9, value)]}, within=(0.0, 1.0))
    numbers = [float(text) for text in Tags(html).text.split() if text.replace(".", "").isdigit()]
    assert "<svg" in html
    inside = html.split('text-anchor="end">')[1:-1]
    assert all(0 <= float(part.split("<")[0]) <= 1 for part in inside), numbers


def test_every_point_of_a_line_can_be_read() -> None:
    html = chart("Loss", {"loss": [(1, 3.0), (20, 2.5), (40, 1.25)]})
    (line,) = [t for t in Tags(html).named("path") if "data-points" in t]
    assert line["data-points"] == "1:3 20:2.5 40:1.25"
    assert "Loss: loss from 3 at step 1 to 1.25 at step 40" in html


def test_bars_are_to_scale_with_their_intervals() -> None:
    html = bars("MAP@R", {"ours": Bar(0.4, 0.3, 0.5), EVIL: Bar(0.1)}, own="ours")
    tags = Tags(html)
    styles = [t["style"] for t in tags.named("i")]
    assert styles == ["width: 80.0%", "left: 60.0%; width: 40.0%", "width: 20.0%"]
    assert "0.400 [0.30, 0.50]" in tags.text
    assert EVIL in tags.text
    assert bars("x", {"a": Bar(0.0)}) != ""


@pytest.mark.parametrize(
    "figure", [None, float("nan"), -0.2, True, {"value": 1, "low": -1, "high": 2}]
)
def test_what_is_no_bar_is_not_drawn(figure: Any) -> None:
    assert bar_of(figure) is None


def test_paths_of_models_are_short_where_they_differ() -> None:
    assert short_names(["random", "runs/a", "runs/b"]) == {
        "random": "random",
        "runs/a": "a",
        "runs/b": "b",
    }
    assert list(short_names(["x/a", "y/a"]).values()) == ["x/a", "y/a"]
