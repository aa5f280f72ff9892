"""The verdict on adapted weights says what its figures say."""

import json
from pathlib import Path

import numpy as np
import pytest

from selfsup.config import EvaluateConfig
from selfsup.evaluate.adaptation import Adaptation, Sets, SetVerdict, judge_all
from selfsup.evaluate.intervals import Figure


def verdict_of(lead: Figure, change: Figure | None = None) -> Adaptation:
    def about(name: str, difference: Figure) -> SetVerdict:
        first, last = Figure(0.4, 0.3, 0.5), Figure(0.4 + difference.value, 0.3, 0.6)
        rows = {key: {"Recall@1": f, "MAP@R": f} for key, f in (("a", first), ("b", last))}
        return SetVerdict(name, rows, {"Recall@1": difference, "MAP@R": difference})

    other = None if change is None else about("folder/general.npz", change)
    return Adaptation(about("mine/", lead), other, ("mine/: 64 classes to train on",))


LEADS, SPANS, LOSES = Figure(0.05, 0.03, 0.07), Figure(0.01, -0.02, 0.04), Figure(-0.1, -0.2, -0.05)


@pytest.mark.parametrize(
    ("lead", "helped", "words"),
    [
        (LEADS, True, "adapted leads by +0.050 [+0.030, +0.070] MAP@R"),
        (SPANS, False, "keep the published weights: no lead is proven, +0.010 [-0.020, +0.040]"),
        (LOSES, False, "keep the published weights: adapting lost -0.100 [-0.200, -0.050]"),
        (Figure(0.02, 0.0, 0.04), False, "keep the published weights"),
    ],
)
def test_a_lead_counts_where_its_interval_is_above_zero(
    lead: Figure, helped: bool, words: str
) -> None:
    found = verdict_of(lead)
    assert found.helped is helped
    assert found.verdict().startswith(words)
    assert f"verdict: {words.split(':')[0]}" in found.table()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (-0.011, "but it forgot: -0.011"),
        (-0.009, "and forgot nothing: -0.009"),
        (0.02, "and forgot nothing: +0.020"),
    ],
)
def test_more_than_a_hundredth_lost_is_told_as_forgotten(change: float, words: str) -> None:
    text = verdict_of(LEADS, Figure(change, change - 0.01, change + 0.01)).verdict()
    assert words in text
    assert text.endswith("on general.npz")


def test_what_is_not_used_has_forgotten_nothing() -> None:
    assert "general" not in verdict_of(SPANS, LOSES).verdict()


def test_the_table_fits_80_columns() -> None:
    lines = verdict_of(LEADS, LOSES).table().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("general.npz") for line in lines)


def test_judged_by_searches_among_the_images(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (6, 1, 1, 1, 3))
    images = (colours + draw.integers(-9, 10, (6, 4, 16, 16, 3))).clip(0, 255).astype(np.uint8)
    data = tmp_path / "x.npz"
    np.savez(data, images=images.reshape(24, 16, 16, 3), labels=np.arange(6).repeat(4))
    sets = Sets("", (), str(data), str(data), ("24 images",))
    config = EvaluateConfig(model="", data="", resamples=20, workers=0)
    found = judge_all(sets, {"pixels": "pixels", "colours": "colours"}, config)
    for each in (found.own, found.remembered):
        assert each is not None
        mean = {name: rows["MAP@R"].value for name, rows in each.figures.items()}
        assert each.lead["MAP@R"].value == pytest.approx(mean["colours"] - mean["pixels"])
        assert mean["colours"] > 0.9
    found.save(tmp_path / "adapt.json", mix=0.7)
    record = json.loads((tmp_path / "adapt.json").read_text())
    assert record["mix"] == 0.7
    assert record["verdict"] == found.verdict()
    assert record["sets"][0]["lead"]["MAP@R"]["value"] == found.own.lead["MAP@R"].value
