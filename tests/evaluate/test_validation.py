"""Probes of fine-tuning: what they change (nothing), when they stop a run, what is exported."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import FINETUNE, called, kill_after, recipe, recipe_command, run
from pictures import many_classes

import selfsup
from recipes import finetune_triplet
from selfsup.config import EncoderConfig, ValidationConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import build
from selfsup.encoders.encoder import export as export_encoder
from selfsup.evaluate.curve import BARE, KEPT, KNN, MAP, RECALL
from selfsup.evaluate.validation import Validation
from selfsup.training import checkpoint
from selfsup.training.run import Run

pytestmark = pytest.mark.slow

TRIPLET = "recipes/finetune_triplet.py"
REPORTED = (*FINETUNE, "--classes", "8", "--images", "4", "--optim.lr", "0.01")
FLAGS = (*REPORTED, "--no-report")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_classes(tmp_path_factory.mktemp("data") / "many.npz")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_classes(tmp_path_factory.mktemp("data") / "few.npz", classes=12)


def log(out: Path, name: str = MAP) -> list[dict[str, Any]]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [line for line in lines if name in line]


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def weights(out: Path, step: int) -> str:
    last = out / "checkpoints" / f"step-{step:08d}"
    return digest(last / "model.safetensors", last / "optimizer.safetensors")


def exported(out: Path) -> str:
    return digest(out / "encoder" / "model.safetensors")


def number(figure: selfsup.evaluate.Figure | float) -> float:
    return figure if isinstance(figure, float) else figure.value


def last_words(stdout: str) -> str:
    """The sentences after the last line of progress, on one line."""
    return " ".join(stdout.split("encoder in ")[-1].split())


@pytest.mark.parametrize("more", [(), ("--probe.every", "1"), ("--probe.keep", "FEW")])
def test_probes_change_no_weight_of_training(
    data: Path, few: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    without, probed = tmp_path / "without", tmp_path / "probed"
    flags = ("--data", data, *FLAGS, "--probe.held-out", "0")
    done = called(TRIPLET, *flags, "--out", without)
    assert done.returncode == 0, done.stderr
    given = [few if word == "FEW" else word for word in more]
    done = called(TRIPLET, *flags, "--out", probed, "--probe.data", few, *given)
    assert done.returncode == 0, done.stderr
    assert weights(without, 4) == weights(probed, 4)
    assert not log(without)
    assert [line["step"] for line in log(probed)] == [0, 1, 2, 3, 4]


def test_figures_of_a_probe_are_those_of_the_evaluation_of_what_is_exported(
    data: Path, few: Path, tmp_path: Path
) -> None:
    flags = ("--data", data, *FLAGS, "--probe.data", few, "--probe.keep", few)
    done = called(TRIPLET, *flags, "--out", tmp_path / "r", "--probe.export", "last")
    assert done.returncode == 0, done.stderr
    last = log(tmp_path / "r")[-1]
    quiet: dict[str, Any] = {"baselines": (), "resamples": 0}
    found = selfsup.evaluate.retrieval(tmp_path / "r", few, **quiet).figures
    assert last[MAP] == pytest.approx(number(found["MAP@R"]), abs=1e-6)
    assert last[RECALL] == pytest.approx(number(found["Recall@1"]), abs=1e-6)
    assert [last[KEPT + name] for name in (MAP, RECALL, KNN)] == [
        last[name] for name in (MAP, RECALL, KNN)
    ]
    assert "forgot" in last_words(done.stdout)


@pytest.mark.parametrize(
    ("name", "pooling", "more"),
    [("test_resnet", "", ()), ("test_vit", "cls+mean", ()), ("test_vit", "", ("--lora", "2"))],
)
def test_a_start_is_also_measured_without_the_head_that_it_gets(
    data: Path, few: Path, tmp_path: Path, name: str, pooling: Any, more: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    views = ViewsConfig(size=32)
    encoder = build(EncoderConfig(name=name, pooling=pooling), 32)
    export_encoder(encoder, tmp_path / "start" / "encoder", views)
    sets = ("--data", data, "--probe.data", few, "--probe.keep", few)
    flags = ("--init", tmp_path / "start", *sets, *REPORTED[4:])
    done = called(TRIPLET, *flags, *more, "--no-report", "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    begun, *later = log(tmp_path / "r")
    quiet: dict[str, Any] = {"baselines": (), "resamples": 0}
    found = selfsup.evaluate.retrieval(tmp_path / "start", few, **quiet).figures
    assert begun[BARE] == pytest.approx(number(found["MAP@R"]), abs=1e-6)
    assert begun[KEPT + BARE] == begun[BARE] != begun[MAP]
    assert all(BARE not in line for line in later)


def test_a_probe_leaves_the_weights_where_they_lie_in_memory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(tmp_path / "r", data, monkeypatch)
    validation = Validation(script.run, script.config)
    encoder = build(EncoderConfig(name="test_resnet"), 16)
    before = [(p.stride(), p.data_ptr()) for p in encoder.parameters()]
    validation(0, encoder)
    assert script.best() == {0}
    assert [(p.stride(), p.data_ptr()) for p in encoder.parameters()] == before


def test_a_run_tells_how_many_classes_it_holds_out_and_what_it_exports(
    data: Path, tmp_path: Path
) -> None:
    done = called(TRIPLET, "--data", data, "--out", tmp_path / "r", *FLAGS)
    assert done.returncode == 0, done.stderr
    assert "324 images, 4 steps of 32" in done.stdout
    assert "classes    81; left out: none" in done.stdout
    assert "held out   9 more classes of 36 images, to validate on" in done.stdout
    assert "step 0/4  MAP@R 0." in done.stdout
    record = json.loads((tmp_path / "r" / "validation.json").read_text())
    words = last_words(done.stdout)
    assert words.endswith(" ".join(record["sentences"]))
    assert "on 9 held-out classes" in words
    assert selfsup.TrainedRun(tmp_path / "r").outcome == record["sentences"]
    assert max(len(line) for line in done.stdout.split("encoder in")[1].splitlines()[1:]) <= 80


def test_the_report_has_the_curve_and_the_sentence(data: Path, tmp_path: Path) -> None:
    done = called(TRIPLET, "--data", data, "--out", tmp_path / "r", *REPORTED)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r" / "report.html").read_text()
    assert "of images that training does not see" in page
    assert "<b>Recall@1</b>" in page
    sentence = selfsup.TrainedRun(tmp_path / "r").outcome[0]
    assert sentence[1:] in page


def test_few_classes_are_not_validated_on_and_a_line_says_why(few: Path, tmp_path: Path) -> None:
    done = called(TRIPLET, "--data", few, "--out", tmp_path / "r", *FLAGS)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "no validation: 12 classes are fewer than 80, of which a tenth would be held" in words
    assert "give labelled images of other classes with --probe.data" in words
    assert "held out   " not in done.stdout
    assert not log(tmp_path / "r")
    assert last_words(done.stdout).endswith(
        "nothing was measured on the way to choose another one by"
    )
    assert (tmp_path / "r" / "encoder" / "model.safetensors").exists()


class Scripted:
    """Runs whose MAP@R is given, step by step."""

    def __init__(self, out: Path, data: Path, patch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.config = finetune_triplet.Config(
            data=str(data),
            out=str(out),
            encoder=EncoderConfig(name="test_resnet"),
            views=ViewsConfig(size=16, views=1),
            classes=8,
            images=4,
            steps=100,
            **({"probe": ValidationConfig(every=10)} | settings),
        )
        self.run = Run(self.config)
        self.patch = patch

    def steps(self, *figures: float, start: int = 0) -> Iterator[tuple[int, bool]]:
        """Probe at every step, as a run that begins at `start`."""
        validation = Validation(self.run, self.config)
        values = iter(figures)
        self.patch.setattr(
            Validation,
            "_measure",
            lambda self, encoder, source: {MAP: next(values), RECALL: 0.5, KNN: 0.5},
        )
        for step in range(start, 101):
            encoder = build(EncoderConfig(name="test_resnet"), 16)
            torch.nn.init.constant_(next(encoder.parameters()), float(step))
            yield step, validation(step, encoder)

    def best(self) -> set[int]:
        return {int(f.name[5:]) for f in (self.run.folder / "best").glob("step-*")}


@pytest.mark.parametrize(
    ("figures", "patience", "stop"),
    [
        ((0.2, 0.3, 0.25, 0.3, 0.4), 2, 30),
        ((0.2, 0.3, 0.25, 0.3, 0.1, 0.4), 3, 40),
        ((0.4, 0.3, 0.2), 1, 10),
        ((0.2, 0.2, 0.2, 0.2), 3, 30),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99), 1, None),
    ],
)
def test_patience_stops_a_run_after_as_many_probes_that_are_not_better(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: tuple[float, ...],
    patience: int,
    stop: int | None,
) -> None:
    script = Scripted(tmp_path / "r", data, monkeypatch, patience=patience)
    stops = [step for step, over in script.steps(*figures, *[0.0] * 11) if over]
    assert (stops[0] if stops else None) == stop


def test_without_patience_a_run_never_stops(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(tmp_path / "r", data, monkeypatch)
    assert not any(over for _, over in script.steps(0.9, *[0.1] * 10))


def test_the_best_encoder_stays_and_worse_ones_go(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(tmp_path / "r", data, monkeypatch)
    kept = {
        step: script.best()
        for step, _ in script.steps(0.2, 0.3, 0.3, 0.4, 0.1, 0.5, *[0.1] * 5)
        if step % 10 == 0
    }
    expected = [{0}, {10}, {10}, {30}, {30}, *[{50}] * 6]
    assert list(kept.values()) == expected
    best = selfsup.load(tmp_path / "r" / "best" / "step-00000050")
    assert (next(best.parameters()) == 50).all()


def test_a_run_that_goes_on_from_an_older_checkpoint_has_the_best_of_then(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(tmp_path / "r", data, monkeypatch)
    for step, _ in script.steps(0.2, 0.3, 0.1, 0.4, 0.5):
        if step == 20:  # a checkpoint after the probe of 10 and before that of 30
            model = torch.nn.Linear(1, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            folder = tmp_path / "r" / "checkpoints"
            checkpoint.save(folder, checkpoint.snapshot(step, model, optimizer, extra=None), keep=2)
        if step == 49:
            break
    assert script.best() == {10, 40}
    script.run._cut_log(20)
    probed = [step for step, _ in script.steps(*[0.1] * 8, start=20)]
    assert probed[0] == 20
    assert [line["step"] for line in log(tmp_path / "r")] == list(range(0, 101, 10))
    assert 10 in script.best()


def test_a_probe_that_a_kill_took_is_made_when_the_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(tmp_path / "r", data, monkeypatch)
    for step, _ in script.steps(0.2, 0.3):
        if step == 19:
            break
    next(script.steps(0.7, start=20))  # the checkpoint of 20 was written, its probe was not
    assert [(line["step"], line[MAP]) for line in log(tmp_path / "r")] == [
        *((0, 0.2), (10, 0.3), (20, 0.7))
    ]
    shutil.rmtree(tmp_path / "r" / "best")
    next(script.steps(start=20))  # nor was its encoder
    assert script.best() == {20}


def test_where_only_the_start_wins_it_is_exported_with_a_sentence(
    data: Path, tmp_path: Path
) -> None:
    begin, worse = tmp_path / "begin", tmp_path / "worse"
    flags = ("--data", data, *FLAGS)
    called(TRIPLET, *flags, "--out", begin, "--optim.lr", "1e-9")
    more = ("--init", begin, "--optim.lr", "10", "--optim.warmup", "0")
    done = called(TRIPLET, *flags, "--out", worse, *more)
    assert done.returncode == 0, done.stderr
    assert "fine-tuning did not help: exported the start itself" in last_words(done.stdout)
    assert exported(worse) == exported(begin)
    done = called(TRIPLET, *flags, "--out", worse, *more, "--probe.export", "last")
    assert done.returncode == 0, done.stderr
    assert "as --probe.export last asks" in last_words(done.stdout)
    assert "fine-tuning did not help" in last_words(done.stdout)
    assert exported(worse) != exported(begin)


LONG = (*FLAGS, "--steps", "14", "--probe.every", "2", "--save-every", "3", "--log-every", "1")


@pytest.mark.parametrize(
    ("step", "processes"),
    [(6, 1), *(pytest.param(step, 1, marks=pytest.mark.grid) for step in (3, 9, 13, 16)), (8, 2)],
)
def test_a_killed_run_exports_the_best_encoder_of_an_unbroken_one(
    data: Path, tmp_path: Path, step: int, processes: int
) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    runs = [
        recipe_command(TRIPLET, "--data", data, *LONG, "--out", out, processes=processes)
        for out in (unbroken, killed)
    ]
    done = run(*runs[0])
    assert done.returncode == 0, done.stderr
    assert f"{processes} x cpu" in done.stdout
    kill_after(step, runs[1], killed)
    again = run(*runs[1])
    assert again.returncode == 0, again.stderr
    assert weights(killed, 14) == weights(unbroken, 14)
    assert exported(killed) == exported(unbroken)
    figures = [[(x["step"], x[MAP]) for x in log(out)] for out in (unbroken, killed)]
    assert figures[0] == figures[1]
    assert [at for at, _ in figures[0]] == list(range(0, 15, 2))
    assert (
        last_words(again.stdout).split("validation")[-1].split("exported")[-1]
        == (last_words(done.stdout).split("exported")[-1])
    )


def test_two_processes_hold_out_the_same_classes_and_stop_at_the_same_step(
    data: Path, tmp_path: Path
) -> None:
    flags = ("--data", data, *LONG, "--patience", "1", "--optim.lr", "1e-9")
    outs = tmp_path / "one", tmp_path / "two"
    done = [
        recipe(TRIPLET, *flags, "--out", out, processes=n) for n, out in enumerate(outs, start=1)
    ]
    for each in done:
        assert each.returncode == 0, each.stderr
        assert re.search(r"stopped at step \d+ of 14: no better MAP@R in 1 probes", each.stdout)
    assert "2 x cpu" in done[1].stdout
    first = [log(out)[0][MAP] for out in outs]
    assert first[0] == pytest.approx(first[1], abs=1e-6)
    assert done[1].stdout.count("stopped at step") == 1


def test_a_finished_run_exports_again_what_it_exported(data: Path, tmp_path: Path) -> None:
    flags = ("--data", data, "--out", tmp_path / "r", *LONG)
    done = called(TRIPLET, *flags)
    assert done.returncode == 0, done.stderr
    before = exported(tmp_path / "r"), log(tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "encoder")
    again = called(TRIPLET, *flags)
    assert again.returncode == 0, again.stderr
    assert "nothing is left to train" in again.stdout
    assert (exported(tmp_path / "r"), log(tmp_path / "r")) == before
    assert last_words(again.stdout) == last_words(done.stdout)


def test_a_run_of_before_goes_on_without_holding_classes_out(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    flags = ("--data", data, "--out", out, *FLAGS, "--probe.held-out", "0")
    done = called(TRIPLET, *flags)
    assert done.returncode == 0, done.stderr
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(re.sub(r"probe:\n(  .*\n)+", "", text))
    again = called(TRIPLET, "--data", data, "--out", out, *FLAGS)
    assert again.returncode == 0, again.stderr
    assert "360 images" in again.stdout
    refused = called(TRIPLET, "--data", data, "--out", out, *FLAGS, "--probe.held-out", "0.2")
    assert refused.returncode == 2
    assert "started with other settings (probe.held_out 0.0 -> 0.2)" in refused.stderr


def test_labels_of_proxies_are_those_that_are_trained_on(data: Path, tmp_path: Path) -> None:
    done = called("recipes/finetune_proxies.py", "--data", data, "--out", tmp_path / "r", *FLAGS)
    assert done.returncode == 0, done.stderr
    import safetensors.torch

    last = tmp_path / "r" / "checkpoints" / "step-00000004" / "model.safetensors"
    assert safetensors.torch.load_file(last)["proxies"].shape == (81, 8)


def test_validation_images_may_come_from_python(data: Path, few: Path, tmp_path: Path) -> None:
    content = np.load(few)
    images = list(zip(content["images"], content["labels"].tolist(), strict=True))
    small: dict[str, Any] = {
        "encoder": {"name": "test_resnet"},
        "views": {"size": 16},
        **{"steps": 2, "classes": 8, "images": 4, "report": False, "optim": {"lr": 0.01}},
    }
    runs = [
        selfsup.finetune(data, out=tmp_path / name, validation=validation, patience=3, **small)
        for name, validation in (("a", few), ("b", images))
    ]
    curves = [[line[MAP] for line in run.log if MAP in line] for run in runs]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 3
    with pytest.raises(UserError, match="give one"):
        selfsup.finetune(data, out=tmp_path / "c", validation=few, probe={"data": "x.npz"}, **small)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "fraction": (("--probe.held-out", "1.5"), "--probe.held-out must be from 0 to below 1"),
    "interval": (("--probe.every", "-1"), "--probe.every must be 0 or more, not -1"),
    "neighbours": (("--probe.k", "0"), "--probe.k must be above 0, not 0"),
    "patience": (("--patience", "-1"), "--patience must be 0 or more, not -1"),
    "patience without probes": (
        ("--patience", "3", "--probe.held-out", "0"),
        "--patience 3 needs probes, and there are none (--probe.held-out is 0): give labelled",
    ),
    "two sets": (
        ("--probe.held-out", "0.2", "--probe.data", "mine.npz"),
        "--probe.held-out 0.2 and --probe.data mine.npz are two sets to validate on. Give one",
    ),
    "no such images": (("--probe.data", "nowhere.npz"), "nowhere.npz"),
    "no such images to keep": (("--probe.keep", "nowhere.npz"), "nowhere.npz"),
    "another tool's flag": (("--early-stopping-patience", "3"), "here it is --patience"),
    "another tool's images": (("--val-data", "x.npz"), "here it is --probe.data"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_of_validation_is_one_sentence(
    data: Path, tmp_path: Path, what: str
) -> None:
    flags, sentence = WRONG[what]
    done = called(TRIPLET, "--data", data, "--out", tmp_path / "r", *FLAGS, *flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_patience_on_few_classes_is_refused(few: Path, tmp_path: Path) -> None:
    done = called(TRIPLET, "--data", few, "--out", tmp_path / "r", *FLAGS, "--patience", "3")
    assert done.returncode == 2
    assert "--patience 3 needs probes, and there are none (no validation: 12 classes" in done.stderr
