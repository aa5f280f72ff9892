"""An evaluation as a table, as text, as a dictionary and as a file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selfsup.config import KNNConfig
from selfsup.core.errors import UserError
from selfsup.evaluate import comparison, run
from selfsup.evaluate.comparison import Measurement, compare
from selfsup.evaluate.intervals import Figure
from selfsup.evaluate.model import EvaluatedModel
from selfsup.evaluate.results import (
    NOT_IN_TRAIN,
    Evaluation,
    _margin_cell,
    judgement,
    result_file,
)

FIGURE, LOWER = Figure(0.6, 0.5, 0.7), Figure(0.4, 0.3, 0.5)


def evaluation(tmp_path: Path) -> Evaluation:
    return Evaluation(
        tool="knn",
        model="runs/a [x]",
        file=tmp_path / "knn.json",
        settings={"k": [20]},
        figures={"accuracy": FIGURE, "AUC": 0.75, "accuracy" + NOT_IN_TRAIN: LOWER},
        baselines={"pixels": {"accuracy": LOWER, "accuracy" + NOT_IN_TRAIN: FIGURE}},
        margins={"accuracy": Figure(0.2, 0.1, 0.3)},
        facts={"queries": 9, "test": "[b]"},
        notes=("a note",),
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((2, 0, 2), "better than every baseline"),
        ((0, 2, 2), "worse than a baseline"),
        ((1, 0, 3), "better than every baseline in 1 of 3 figures"),
        ((0, 1, 3), "worse than a baseline in 1 of 3 figures"),
        ((2, 1, 4), "better than every baseline in 2 of 4 figures, worse than one in 1"),
        ((0, 0, 3), "not proven better than the baselines"),
    ],
)
def test_margins_are_judged_in_words(counts: tuple[int, int, int], words: str) -> None:
    assert judgement(*counts) == words


@pytest.mark.parametrize(
    ("low", "high", "mark"), [(0.1, 0.3, "*"), (-0.1, 0.3, " "), (-0.3, -0.1, "!")]
)
def test_a_margin_that_is_proven_is_marked(low: float, high: float, mark: str) -> None:
    assert _margin_cell(Figure((low + high) / 2, low, high)) == f"{(low + high) / 2:+.3f}{mark}"


def test_text_has_figures_baselines_margins_facts_and_notes(tmp_path: Path) -> None:
    lines = str(evaluation(tmp_path)).splitlines()
    rows = [line.split() for line in lines]
    assert lines[0].startswith("knn: runs/a [x]")
    assert ["accuracy", "0.600", "[0.500,", "0.700]", "0.400", "+0.200*"] in rows
    assert ["AUC", "0.75"] in rows
    assert ["accuracy", "0.400", "[0.300,", "0.500]", "0.600"] in rows  # without leaks
    assert "queries 9, test [b]" in lines
    assert any("margin: over the best baseline" in line for line in lines)
    assert lines[-2:] == ["a note", "verdict: better than every baseline in accuracy"]


def test_what_is_printed_is_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(tmp_path).print()
    text = capsys.readouterr().out.rstrip("\n")
    assert text == str(evaluation(tmp_path)) == repr(evaluation(tmp_path))


def test_a_terminal_of_80_characters_shows_every_number_and_no_broken_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("Recall@1", "R-precision", "k-NN, k 20, T 0.1")
    figures: dict[str, Figure | float] = dict.fromkeys(names, FIGURE)
    models = ("random", "pixels", "colours", "pretrained", "another", "a third", "a fourth")
    others: dict[str, dict[str, Figure | float]] = {
        name: dict.fromkeys(names, Figure(i / 100, 0, 1)) for i, name in enumerate(models)
    }
    margins = dict.fromkeys(names, Figure(0.2, 0.1, 0.3))
    many = replace(
        evaluation(tmp_path), figures=figures, baselines=others, margins=margins, facts={}
    )
    many.print()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    words = [word for line in lines for word in line.split()]
    assert words.count("R-precision") == words.count("Recall@1") == 2  # a table each
    assert words.count("+0.200*") == 3
    for i in range(len(models)):
        assert words.count(f"{i / 100:.3f}") == 3


def test_what_is_saved_is_the_dictionary(tmp_path: Path) -> None:
    result = evaluation(tmp_path)
    assert result.save() == tmp_path / "knn.json"
    assert json.loads((tmp_path / "knn.json").read_text()) == result.to_dict()
    other = tmp_path / "deep" / "x.json"
    assert result.save(other) == other
    record = result.to_dict()
    assert record["baselines"]["pixels"]["accuracy"] == {"value": 0.4, "low": 0.3, "high": 0.5}
    assert record["margins"]["accuracy"]["low"] == 0.1


def test_infinity_is_null_in_json(tmp_path: Path) -> None:
    result = Evaluation("health", "m", tmp_path / "h.json", {}, figures={"x": float("inf")})
    assert result.to_dict()["figures"] == {"x": None}
    assert "inf" in str(result)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        evaluation(tmp_path).save(tmp_path / "file" / "knn.json")


def test_other_processes_have_no_figures_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    config = KNNConfig(model="pixels", data="x", baselines=(), out=str(tmp_path / "a.json"))

    def no_measure(features: Tensor) -> Measurement:
        raise AssertionError("only the main process measures")

    result = compare("knn", config, lambda model: torch.ones(1), no_measure)
    result.print()
    assert (result.figures, result.save(), str(result)) == ({}, None, "")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_margins_are_paired_and_over_the_best_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "raw pixels": torch.tensor([1.0, 1, 1, 0]),
        "colours": torch.tensor([1.0, 1, 0, 0]),
        "other": torch.tensor([0.0, 0, 0, 1]),
    }

    def others(model: EvaluatedModel, config: KNNConfig) -> list[EvaluatedModel]:
        return [model._replace(name=name) for name in ("colours", "other")]

    monkeypatch.setattr(comparison, "open_baselines", others)
    config = KNNConfig(model="pixels", data="x", resamples=50)
    result = compare(
        "knn", config, lambda model: model.name, lambda name: Measurement({"a": values[name]}, {})
    )
    assert list(result.baselines) == ["colours", "other"]
    assert result.margins["a"].value == 0.25  # over colours, by one image of four
    assert result.margins["a"].low == 0.0


def test_files_are_named_by_run_or_by_model() -> None:
    model = EvaluatedModel("timm (x y).pth", torch.nn.Identity(), None)  # type: ignore[arg-type]
    assert result_file("knn.json", model) == Path("knn-timm-x-y-.pth.json")
    assert result_file("index", model) == Path("index-timm-x-y-.pth")
    assert result_file("knn.json", model._replace(folder=Path("r"))) == Path("r/knn.json")


def test_an_evaluation_from_python_is_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain colours in two groups: each image's neighbours have its label."""
    monkeypatch.chdir(tmp_path)
    levels = np.r_[20 + np.arange(8), 200 + np.arange(8)].astype(np.uint8)
    images = np.repeat(levels, 8 * 8 * 3).reshape(16, 8, 8, 3)
    images[..., 1] = 255 - images[..., 1]
    np.savez("x.npz", images=images, labels=np.arange(16) // 8)
    config = KNNConfig(model="pixels", data="x.npz", size=8, k=(3,), baselines=("colours",))
    result = run.knn(config)
    figure = result.figures["k-NN, k 3, T 0.1"]
    assert isinstance(figure, Figure)
    assert figure.value == 1.0
    assert result.baselines == {}  # a baseline has none of its own
    assert result.save() == Path("knn-raw-pixels.json")
