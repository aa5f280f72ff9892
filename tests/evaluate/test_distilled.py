"""compare-distilled: the figures of knn and retrieval, the share of their gaps, and the costs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import called
from pictures import folder
from teachers import teacher as encoder_at
from torch import Tensor, nn

from selfsup.config import CompareDistilledConfig, KNNConfig, RetrievalConfig
from selfsup.evaluate.distilled import CompareDistilled, Contender, compare_distilled
from selfsup.evaluate.intervals import Figure, Gap
from selfsup.evaluate.run import knn, retrieval
from selfsup.evaluate.speed import images_per_second

TOOL = "tools/compare_distilled.py"
ROLES = ("teacher", "student", "baseline")
KNN = "k-NN, k 20, T 0.1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distilled")
    folder(root / "images")
    folder(root / "one", classes=1)
    (root / "flat").mkdir()
    for seed, role in enumerate((*ROLES, "published")):
        encoder_at(root / role, seed=seed)
    np.savez(
        root / "alone.npz",
        images=np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(4),
    )
    return root


def flags(root: Path, *more: str | Path) -> list[str | Path]:
    models = [word for role in ROLES for word in (f"--{role}", root / role)]
    return [*models, "--data", root / "images", "--rounds", "1", "--timed", "4", *more]


def settings(root: Path, **more: Any) -> CompareDistilledConfig:
    models = {role: str(root / role) for role in ROLES}
    values: dict[str, Any] = {"data": str(root / "images"), "rounds": 1, "timed": 4}
    return CompareDistilledConfig(**(values | models | more))


def test_figures_are_those_of_retrieval_and_knn(root: Path) -> None:
    found = compare_distilled(settings(root, resamples=50))
    for role in ROLES:
        same: Any = {"model": str(root / role), "data": str(root / "images")}
        same |= {"baselines": (), "resamples": 50}
        searched = retrieval(RetrievalConfig(**same)).figures
        expected = {name: searched[name] for name in ("Recall@1", "MAP@R")}
        expected[KNN] = knn(KNNConfig(**same)).figures[KNN]
        for name, each in found.models[role].figures.items():
            assert each == pytest.approx(expected.pop(name), abs=1e-9)
        assert not expected


def test_gaps_are_of_the_figures_and_published_weights_are_compared_with(root: Path) -> None:
    found = compare_distilled(settings(root, published=str(root / "published")))
    figures = {role: m.figures for role, m in found.models.items()}
    for name, gap in found.gaps.items():
        teacher, student, baseline, published = (f[name].value for f in figures.values())
        assert gap.lead.value == pytest.approx(teacher - baseline)
        assert gap.gain.value == pytest.approx(student - baseline)
        assert found.over_published[name].value == pytest.approx(student - published)
        if gap.closed is not None:
            share = (student - baseline) / (teacher - baseline)
            assert gap.closed.value == pytest.approx(share)


def test_the_costs_are_of_the_networks(root: Path) -> None:
    found = compare_distilled(settings(root))
    model = found.models["teacher"]
    assert (model.size, model.width) == (24, 12)
    assert model.parameters == found.models["student"].parameters > 1000
    assert model.images_per_s > 0
    assert found.facts["images"] == 24
    assert found.facts["unmatched"] == 0


class Clock:
    """A time that stands still unless somebody works."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Worker(nn.Module):
    """Takes the seconds that it is told, and notes how it was called."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, list(seconds)
        self.calls: list[tuple[int, int, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        mode = torch.is_inference_mode_enabled()
        self.calls.append((len(images), torch.get_num_threads(), self.training, mode))
        self.clock.now += self.seconds.pop(0)
        return images


def test_speeds_are_medians_on_one_thread_without_the_first_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("selfsup.evaluate.speed.time", clock)
    slow, quick = Worker(clock, 90.0, 2.0, 3.0, 8.0), Worker(clock, 0.1, 0.25, 7.0, 0.5)
    images = {"slow": torch.zeros(6, 3, 2, 2), "quick": torch.zeros(4, 3, 2, 2)}
    sides = {"slow": (slow, images["slow"]), "quick": (quick, images["quick"])}
    assert images_per_second(sides, rounds=3) == {"slow": 6 / 3.0, "quick": 4 / 0.5}
    assert slow.calls == [(6, 1, False, True)] * 4
    assert quick.calls == [(4, 1, False, True)] * 4
    assert slow.training


def contender(name: str, value: float) -> Contender:
    figures = {key: Figure(value, value - 0.123, value + 0.123) for key in ("Recall@1", "MAP@R")}
    figures[KNN] = Figure(value, value, value)
    return Contender(name, 1_234_567_890, 1e6, 512, 2048, figures)


def table_of(**gaps: Gap) -> str:
    models = {
        role: contender("/a/very/long/name/of/a/folder/of/runs/" + role, 0.5)
        for role in (*ROLES, "published")
    }
    models["teacher"] = replace(models["teacher"], images_per_s=200)
    lost = Figure(-0.123, -0.456, -0.012)
    facts = {
        **{"images": 1_000_000, "classes": 100_000, "unmatched": 99_999, "unreadable": 9_999},
        "timed": "batches of 64, one thread, cuda, median of 7 rounds in turn",
    }
    return CompareDistilled(models, gaps, dict.fromkeys(gaps, lost), facts, {}).table()


def test_the_table_has_shares_in_percent_and_fits_80_columns() -> None:
    lead, gain = Figure(0.2, 0.1, 0.3), Figure(-0.05, -0.11, 0.01)
    share = Figure(-0.254, -1.123, 0.056)
    names = ("Recall@1", "MAP@R", KNN)
    text = table_of(**dict.fromkeys(names, Gap(lead, gain, share)))
    rows = [line.split() for line in text.splitlines()]
    assert ["closed", *["-25", "%", "[-112,", "6]"] * 3] in rows
    assert ["gap", *["+0.200", "[+0.10,", "+0.30]"] * 3] in rows
    assert max(map(len, text.splitlines())) <= 80
    costs = {row[0]: row[1:] for row in rows if len(row) == 7}
    size = ["512", "2048"]
    name = "...der/of/runs/student"[-19:]
    assert costs["teacher"][:5] == ["1,234,567,890", "200", "1.0x", *size]
    assert costs["student"] == ["1,234,567,890", "1,000,000", "5000.0x", *size, f"...{name[3:]}"]


@pytest.mark.parametrize(
    ("lead", "sentence"),
    [
        (Figure(0.0, 0.0, 0.0), "the teacher is not better than the baseline (+0.000): no gap"),
        (Figure(-0.1, -0.2, 0.1), "the teacher is not better than the baseline (-0.100): no gap"),
        (Figure(0.02, -0.01, 0.05), "lead +0.020 [-0.01, +0.05] is too uncertain to divide by"),
    ],
)
def test_a_gap_without_a_share_is_explained(lead: Figure, sentence: str) -> None:
    share = Figure(0.5, 0.4, 0.6)
    gaps = {"MAP@R": Gap(lead, lead, None), "Recall@1": Gap(share, share, share)}
    lines = table_of(**gaps).splitlines()
    assert f"MAP@R: {sentence}" in " ".join(lines).replace("the teacher's ", "")
    assert not any(line.startswith("Recall@1:") for line in lines)
    assert any(line.split() == ["closed", "no", "gap", "50", "%", "[40,", "60]"] for line in lines)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json_and_writes_the_record(root: Path) -> None:
    done = called(TOOL, *flags(root, "--published", root / "published", "--out", root / "d.json"))
    assert done.returncode == 0, done.stderr
    assert "closed" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    record = json.loads((root / "d.json").read_text())
    assert list(record["models"]) == [*ROLES, "published"]
    done = called(TOOL, *flags(root, "--json"))
    printed = json.loads(done.stdout)
    assert printed["gaps"].keys() == record["gaps"].keys() == {"Recall@1", "MAP@R", KNN}
    assert printed["models"]["student"]["figures"] == record["models"]["student"]["figures"]
    assert printed["over_published"] == {}


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no such teacher": (("--teacher", "nowhere"), "'nowhere' is neither a folder, a file nor"),
    "no model": (("--student", ""), "--student needs a model: a run, a folder, a file"),
    "one model twice": (
        ("--baseline", "student"),
        "--student and --baseline are both student: give two models",
    ),
    "a folder without one": (("--published", "flat"), "flat holds no exported encoder"),
    "no labels": (("--data", "flat"), "flat holds no images"),
    "one class": (("--data", "one"), "all labels are the same"),
    "no two of a class": (("--data", "alone.npz"), "has one image, and two are needed"),
    "no neighbours": (("--k", "0"), "--k must be above 0, not 0"),
    "no temperature": (("--temperature", "0"), "--temperature must be above 0, not 0"),
    "no resamples": (("--resamples", "0"), "--resamples must be above 0, not 0"),
    "no rounds": (("--rounds", "-1"), "--rounds must be above 0, not -1"),
    "no images to time": (("--timed", "0"), "--timed must be above 0, not 0"),
    "weights twice": (("--init", "x.pth"), "--teacher teacher brings its own weights"),
    "no room": (("--out", "images"), "--out images is a folder; name a file in it"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_one_sentence(root: Path, what: str) -> None:
    more, sentence = WRONG[what]
    models = [word for role in ROLES for word in (f"--{role}", role)]
    small = ("--rounds", "1", "--timed", "4")
    given = [*models, "--data", "images", *small]
    for flag, value in zip(more[::2], more[1::2], strict=True):
        if flag in given:
            given[given.index(flag) + 1] = value
        else:
            given += [flag, value]
    done = called(TOOL, *given, cwd=root)
    assert done.returncode == 2, done.stdout
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    assert "--model" not in done.stderr
