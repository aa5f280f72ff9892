"""A run that goes on remembers what its log says of its health."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.finetune_triplet import Config
from selfsup.config import EncoderConfig, TripletConfig, ViewsConfig
from selfsup.data.sources import ArraySource
from selfsup.encoders.encoder import build
from selfsup.methods.health import diagnose
from selfsup.methods.triplet_ranking import Triplet
from selfsup.training.run import Run
from selfsup.training.watch import Watch, quicker_reading

FIRST: dict[str, Any] = {"step": 1, "std": 0.6, "rank": 40.0, "cosine": 0.5, "gap": 1.0}
FALLEN = FIRST | {"gap": 0.1, "state": "collapsing"}


def going_on(folder: Path, states: list[str], batch: int = 64) -> Watch:
    """Watch a run whose log has a report of each state after the first."""
    run = Run(Config(data="x", out=str(folder)))
    later = [FALLEN | {"step": 20 * i, "state": state} for i, state in enumerate(states, 1)]
    lines = [*([FIRST | {"state": "healthy"}] * bool(states)), *later, {"step": 500, "loss": 1.0}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    method = Triplet(build(EncoderConfig(name="test_resnet"), 16), TripletConfig(dim=4))
    source = ArraySource(np.zeros((4, 16, 16, 3), np.uint8), None, ())
    return Watch(run, method, source, batch=batch, start=500)


@pytest.mark.parametrize(
    ("states", "unhealthy"),
    [
        (["healthy", "collapsing"], 1),
        (["healthy", "collapsing", "collapsed"], 2),
        (["collapsing", "healthy", "healthy"], 0),
        ([], 0),
    ],
)
def test_unhealthy_reports_in_a_row_are_counted_over_a_restart(
    tmp_path: Path, states: list[str], unhealthy: int
) -> None:
    assert going_on(tmp_path, states).unhealthy_reports == unhealthy


def test_the_first_report_after_a_restart_is_judged_with_those_before(tmp_path: Path) -> None:
    watch = going_on(tmp_path, ["healthy"] * 5)
    assert watch.first is not None
    assert watch.first["step"] == 1
    assert [signs["step"] for signs in watch.recent] == [60, 80, 100]
    watch.recent.append(FALLEN)
    assert diagnose(watch.first, list(watch.recent), 64).state == "collapsing"
    wider = going_on(tmp_path / "b", ["healthy"] * 20, batch=24)
    assert len(wider.recent) == 8


def test_a_new_run_remembers_nothing(tmp_path: Path) -> None:
    watch = going_on(tmp_path, [])
    assert watch.first is None
    assert not watch.recent


@pytest.mark.parametrize(
    ("data", "in_memory", "workers", "words"),
    [
        ("images", False, None, ["selfsup pack --data", "images.pack --side 36`", "--workers"]),
        ("list.csv", False, 2, ["selfsup pack --data", "list.pack --side 36`"]),
        ("my images", False, 2, ["'", "my images.pack'"]),
        ("packed.pack", False, 2, ["more --workers"]),
        ("packs", False, 2, ["more --workers"]),
        ("nowhere, too", False, 2, ["more --workers"]),
        ("a.npz", True, 2, ["more --workers"]),
        ("a.npz", True, 0, []),
    ],
)
def test_a_run_that_waits_for_images_is_told_what_helps(
    data: str, in_memory: bool, workers: int | None, words: list[str], tmp_path: Path
) -> None:
    for name in ("images", "my images", "packs"):
        (tmp_path / name).mkdir()
    for name in ("list.csv", "packed.pack", "packs/part.pack", "a.npz"):
        (tmp_path / name).touch()
    views = ViewsConfig(size=32, views=1)
    config = Config(data=str(tmp_path / data), out="y", workers=workers, views=views)
    hint = quicker_reading(config, in_memory=in_memory)
    assert all(word in hint for word in words)
    assert bool(hint) == bool(words)
    assert ("selfsup pack" in hint) == any("pack" in word for word in words if ".pack" in word)


@pytest.mark.parametrize(("fraction", "steps", "times"), [(0.3, 5, 1), (0.1, 5, 0), (0.9, 1, 0)])
def test_it_is_told_once_and_not_of_the_first_step(
    fraction: float, steps: int, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, lines = going_on(tmp_path, []), list[str]()
    watch.source.in_memory = False
    monkeypatch.setattr(watch.run, "print_line", lines.append)
    for _ in range(3):
        watch._hint_of_waiting(watch.since + steps, fraction)
    assert len(lines) == times
    assert all(line.startswith("hint: steps wait 30% of the time for images: ") for line in lines)
