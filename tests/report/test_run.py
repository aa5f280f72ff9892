"""The report of a run: what it says, that nothing gets through, and that a browser shows it."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import recipe
from pictures import folder
from report.test_pages import EVIL, Tags, only_its_own_script

from selfsup.core.errors import UserError
from selfsup.data.sources import ArraySource
from selfsup.evaluate.features import Features
from selfsup.report.curves import chart, ticks
from selfsup.report.embeddings import failures, layout_2d, learnt, with_neighbours
from selfsup.report.maps import scatter
from selfsup.report.page import Verdict
from selfsup.report.run import read_run, report
from selfsup.report.verdict import verdict

HEALTHY = {"step": 20, "loss": 1.0, "std": 0.9, "cosine": 0.0, "state": "healthy"}


def record(low: float, high: float) -> dict[str, Any]:
    """What a tool writes, with a margin in that interval."""
    figure = {"value": 0.6, "low": 0.5, "high": 0.7}
    return {
        "tool": "knn",
        "figures": {"k-NN, k 20, T 0.1": figure},
        "baselines": {
            "random": {"k-NN, k 20, T 0.1": {**figure, "value": 0.3}},
            "pixels": {"k-NN, k 20, T 0.1": {**figure, "value": 0.4}},
        },
        "margins": {"k-NN, k 20, T 0.1": {"value": 0.2, "low": low, "high": high}},
        "facts": {"queries": 9, "leaked files": 2},
    }


def told(judged: Verdict) -> str:
    """All that a verdict says, in one line."""
    return " ".join([judged.words + ".", *judged.sentences])


def run_of(root: Path, **files: str) -> Path:
    """A run's folder with these files."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.yaml").write_text("data: images\nseed: 3\noptim:\n  lr: 0.1\n")
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def test_the_verdict_is_two_sentences_with_their_reason() -> None:
    judged = verdict([{**HEALTHY, "step": 1, "loss": 5.0}, HEALTHY], [record(0.1, 0.3)])
    assert judged.sentences == [
        "Its features are better than every baseline: k-NN, k 20, T 0.1 0.600 [0.500, 0.700] "
        "against 0.400 of pixels, a margin beyond chance.",
        "Training was healthy at all 2 checks (loss 5 at step 1, 1 at 20, spread of embeddings "
        "0.90 of 1).",
    ]
    assert judged[:2] == ("good", "Better than every baseline")


@pytest.mark.parametrize(
    ("log", "records", "words"),
    [
        ([HEALTHY, {**HEALTHY, "state": "collapsed"}], [], "has ended collapsed: its embeddings"),
        ([{**HEALTHY, "state": "starving"}, HEALTHY], [], "starving at 1 of 2 checks and healthy"),
        (
            [],
            [],
            "Not compared with baselines yet. selfsup knn, selfsup linear and selfsup retrieval",
        ),
        ([HEALTHY], [record(-0.1, 0.3)], "not significantly different from the best baseline"),
        ([HEALTHY], [record(-0.3, -0.1)], "worse than the best baseline"),
    ],
)
def test_a_verdict_does_not_flatter(log: Any, records: Any, words: str) -> None:
    assert words in told(verdict(log, records))


@pytest.mark.parametrize("state", ["collapsed", "collapsing", "memorising", "starving"])
def test_what_is_said_of_an_end_agrees_with_the_figures(state: str) -> None:
    ended = [HEALTHY, {**HEALTHY, "state": state}]
    better = told(verdict(ended, [record(0.1, 0.3)]))
    assert (
        "Yet its figures are better than every baseline's, its start's too: they decide" in better
    )
    for records in ([], [record(-0.3, -0.1)], [record(0.1, 0.3), record(-0.3, -0.1)]):
        words = told(verdict(ended, records))
        assert "Measure it beside what it began with (--against) before you use it" in words
        assert "do not use" not in words


@pytest.mark.parametrize(
    ("init", "baseline", "decides"),
    [
        ("", "", True),  # from random weights, which are a baseline
        ("runs/a", "", False),
        ("runs/a", "a", True),
        ("runs/a", "ab", False),
        ("timm:resnet18", "resnet18 (timm:resnet18)", True),
        ("timm:resnet18", "resnet18 (random weights)", False),
        ("weights/v.pth", "resnet18 (v.pth, 60 of 62 tensors)", True),
        ("weights/v.pth", "resnet18 (v.pth2)", False),
    ],
)
def test_figures_decide_only_beside_those_of_the_start(
    init: str, baseline: str, decides: bool
) -> None:
    measured = record(0.1, 0.3)
    if baseline:
        measured["baselines"][baseline] = measured["baselines"]["random"]
    ended = [HEALTHY, HEALTHY | {"state": "collapsing"}]
    assert ("they decide" in told(verdict(ended, [measured], init=init))) == decides
    other = record(0.1, 0.3)  # a figure that was not measured beside the start
    if init:
        assert "they decide" not in told(verdict(ended, [measured, other], init=init))


@pytest.mark.parametrize("std", [0.0, 0.003, 0.0199])
@pytest.mark.parametrize("before", ["healthy", "starving"])
def test_nearly_equal_embeddings_are_never_called_healthy(std: float, before: str) -> None:
    last = HEALTHY | {"std": std, "positive": 0.001, "negative": 0.002, "gap": 0.9}
    words = told(verdict([HEALTHY, HEALTHY | {"state": before}, last], []))
    assert "healthy" not in words
    assert (
        f"nearly equal (loss 1 at step 20, 1 at 20, spread of embeddings {std:.3f} of 1)" in words
    )
    assert "healthy at all" in told(verdict([HEALTHY, last | {"std": 0.021}], []))


def test_each_state_of_a_run_is_counted() -> None:
    states = ["healthy", "starving", "collapsing", "starving", "healthy"]
    words = told(verdict([HEALTHY | {"state": state} for state in states], []))
    assert "Training was starving at 2 and collapsing at 1 of 5 checks and healthy" in words


@pytest.mark.parametrize(
    ("gap", "warned"), [(0.41, True), (0.5, True), (0.51, False), (-0.2, True)]
)
def test_labels_that_overlap_are_quoted_with_their_gap(gap: float, warned: bool) -> None:
    last = HEALTHY | {"positive": 0.3, "negative": 0.6, "gap": gap}
    words = told(verdict([HEALTHY, last], []))
    assert "nearly as far apart" not in words
    assert ("of one label and of two overlap: they are 0.30 and 0.60" in words) == warned
    assert (f"at the last check, {gap:.2f} deviations apart" in words) == warned


def tool(name: str, figure: str, low: float, high: float) -> dict[str, Any]:
    """What a tool writes, with one figure."""
    other = record(low, high)
    rename = {"k-NN, k 20, T 0.1": figure}
    return other | {
        "tool": name,
        "figures": {rename[k]: v for k, v in other["figures"].items()},
        "margins": {rename[k]: v for k, v in other["margins"].items()},
        "baselines": {
            b: {rename[k]: v for k, v in f.items()} for b, f in other["baselines"].items()
        },
    }


def test_a_verdict_is_on_the_figures_of_all_tools() -> None:
    better, same, worse = (0.1, 0.3), (-0.1, 0.3), (-0.3, -0.1)
    tools = [
        tool("retrieval", "MAP@R", *same),
        tool("linear", "linear probe", *better),
        tool("knn", "k-NN, k 20, T 0.1", *worse),
    ]
    words = told(verdict([HEALTHY], tools))
    assert "better than every baseline, beyond chance, in 1 of 3 figures: linear probe" in words
    assert "worse than the best baseline in 1 of 3 figures: k-NN" in words
    assert "not significantly different from the best baseline in 1 of 3 figures: MAP@R" in words
    assert "1 of 1" not in told(verdict([HEALTHY], tools[:1]))
    two = told(verdict([HEALTHY], [tools[1], tool("retrieval", "MAP@R", *better)]))
    assert "in 2 of 2 figures: linear probe" in two
    assert "different" not in two


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("steps", [800, None])
def test_a_run_that_has_not_finished_says_so(
    tmp_path: Path, checkpoints: bool, steps: int | None
) -> None:
    log = "".join(json.dumps(HEALTHY | {"step": i}) + "\n" for i in (1, 7))
    run = run_of(tmp_path / "a", log__jsonl=log, about__json='{"command": "x"}')
    (run / "config.yaml").write_text(f"data: images\nsteps: {steps or 'null'}\n")
    if checkpoints:
        (run / "checkpoints").mkdir()
        (run / "about.json").unlink()
    of = " of 800" if steps else ""
    text = " ".join(Tags(report([read_run(run)])).text.split())
    assert f"Training has not finished: it has come to step 7{of}. Training was healthy" in text
    assert "Not finished. Not compared with baselines yet" in text
    (run / "encoder").mkdir()
    (run / "encoder" / "config.json").write_text("{}")
    assert "has not finished" not in Tags(report([read_run(run)])).text


@pytest.mark.parametrize(
    ("positive", "negative", "warned"), [(0.40, 0.46, True), (0.5, 0.4, True), (0.3, 0.9, False)]
)
def test_healthy_embeddings_that_hardly_tell_labels_apart_get_a_warning(
    positive: float, negative: float, warned: bool
) -> None:
    last = HEALTHY | {"positive": positive, "negative": negative}
    words = told(verdict([HEALTHY, last], []))
    assert ("nearly as far apart as images of two" in words) == warned
    assert "Training was healthy" in words


def test_a_page_has_figures_baselines_data_settings_and_lets_nothing_through(
    tmp_path: Path,
) -> None:
    log = "\n".join(json.dumps({**HEALTHY, "step": i}) for i in (1, 20)) + '\n{"step": 4'
    bad = f'path,reason\n"{EVIL}",broken\n'
    about = json.dumps({"command": f"recipe --data '{EVIL}'"})
    files = {"log__jsonl": log, "bad_images__csv": bad, "about__json": about}
    run = run_of(tmp_path / "a", knn__json=json.dumps(record(0.1, 0.2)), **files)
    html = report([read_run(run)])
    tags = Tags(html)
    assert only_its_own_script(tags)
    assert not list(tags.named("link"))
    assert "http" not in html
    for words in (EVIL, "0.600 [0.500, 0.700]", "leaked files", "broken", "lr: 0.1", "pixels"):
        assert words in tags.text
    assert len(list(tags.named("path"))) > 8
    assert all(
        t.get("role") and t.get("aria-label") for t in tags.named("svg") if "aria-hidden" not in t
    )


def test_several_runs_stand_side_by_side_with_what_differs(tmp_path: Path) -> None:
    log = json.dumps(HEALTHY) + "\n"
    one = run_of(tmp_path / "one", log__jsonl=log)
    two = run_of(tmp_path / "two", log__jsonl=log)
    (two / "config.yaml").write_text("data: images\nseed: 3\noptim:\n  lr: 0.2\n")
    text = Tags(report([read_run(one), read_run(two)])).text
    assert "2 runs side by side" in text
    assert "oneNot compared with baselines yet. selfsup knn" in text
    assert "Training was healthy" in text
    assert "optim.lr0.10.2" in text
    assert "seed33" not in text


def test_runs_of_one_name_and_records_of_older_tools_are_shown_too(tmp_path: Path) -> None:
    log = json.dumps(HEALTHY) + "\n"
    old = {k: v for k, v in record(0, 1).items() if k not in ("baselines", "margins")}
    runs = [
        read_run(run_of(tmp_path / part / "run", log__jsonl=log, knn__json=json.dumps(old)))
        for part in ("a", "b")
    ]
    text = Tags(report(runs)).text
    for part in ("a", "b"):
        assert f"{tmp_path / part / 'run'}Not compared with baselines yet" in text


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run: it has no config.yaml"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1.0]), (3.2, 6.1, [4, 5, 6]), (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1])],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_chart_passes_over_what_is_no_number_and_needs_one_that_is() -> None:
    assert chart("x", {"a": [(0, float("nan"))]}) == ""
    html = chart("x", {"a": [(0, 1.0), (1, float("inf")), (2, 1.0)], "<b>": [(0, 2.0)]})
    assert "nan" not in html
    assert "inf" not in html
    assert "&lt;b&gt;" in html
    assert len({t["stroke-dasharray"] for t in Tags(html).named("path") if t.get("fill")}) == 2


def test_kinds_of_points_differ_in_shape_where_colours_run_out() -> None:
    html = scatter([(0, 0), (1, 1)], [0, 8], ["a", "b"])
    used = [tag["href"] for tag in Tags(html).named("use")]
    assert used == ["#s0", "#s1"]


def source_of(n: int) -> tuple[ArraySource, Features]:
    """Two distant groups, image 0 with the label of the other."""
    labels = torch.arange(n) % 2
    x = torch.eye(2)[labels] + 0.01 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    labels = labels.clone()
    labels[0] = 1
    images = np.full((n, 8, 8, 3), 99, np.uint8)
    source = ArraySource(images, labels, [EVIL, "dog"])
    return source, Features(x, labels, torch.arange(n), source.classes, 0)


def test_a_wrong_label_is_suspected_and_neighbours_are_marked(tmp_path: Path) -> None:
    images = with_neighbours(*source_of(60))
    html = "".join(
        [*learnt(images, seed=0, tsne=False), *failures(images, tmp_path / "suspects.csv")]
    )
    tags = Tags(html)
    kinds = {figure.get("class") for figure in tags.named("figure")}
    assert {"right", "wrong"} <= kinds
    assert "1 of 60 images have neighbours of which 80% or more agree" in tags.text
    assert "All of them are in suspects.csv" in tags.text
    with (tmp_path / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["label"], row["suggested"]) for row in rows] == [
        ("image 0", "dog", EVIL)
    ]
    assert EVIL in tags.text
    assert not list(tags.named("script"))
    assert len(list(tags.named("use"))) == 60


def test_a_map_keeps_groups_apart_whichever_way_it_is_laid_out() -> None:
    _, features = source_of(60)
    for tsne in (False, True):
        two = layout_2d(features.x, seed=0, tsne=tsne)
        middle = [two[1:][torch.arange(1, 60) % 2 == k] for k in (0, 1)]
        distance = (middle[0].mean(0) - middle[1].mean(0)).norm()
        assert distance > max(float((m - m.mean(0)).norm(dim=1).mean()) for m in middle)
        assert two.shape == (60, 2)


@pytest.mark.slow
def test_a_run_ends_with_a_report_and_a_browser_shows_it(tmp_path: Path) -> None:
    data = folder(tmp_path / "images")
    flags = ("--data", data, "--out", tmp_path / "run", "--encoder.name", "test_resnet")
    small = ("--views.size", "32", "--batch", "8", "--steps", "4", "--encoder.stem", "standard")
    done = recipe("recipes/pretrain_simclr.py", *flags, *small)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    done = recipe("tools/knn.py", "--model", tmp_path / "run", "--data", data, "--k", "3")
    assert done.returncode == 0, done.stderr
    done = recipe("tools/report.py", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "run" / "report.html"
    text = Tags(page.read_text()).text
    for words in ("Training was healthy", "k-NN, k 3, T 0.1", "Map", "recipes/pretrain_simclr.py"):
        assert words in text
    assert page.stat().st_size < 3e6
    console = browsed(page, tmp_path)
    assert "CONSOLE" not in console


def browsed(page: Path, where: Path) -> str:
    """What a browser without a network says of a page."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("needs chromium")
    shot = where / "page.png"
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", "--enable-logging=stderr", "--window-size=1200,3000"),
            *(f"--user-data-dir={where / 'browser'}", f"--screenshot={shot}", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(where)},
        check=False,
    )
    assert shot.stat().st_size > 20_000, done.stderr
    return done.stderr
