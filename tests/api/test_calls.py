"""The public calls: in a script, in a notebook, twice in one process, and what they say."""

import importlib
import multiprocessing
import os
import random
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import ROOT, called, environment, kill_after, run, torchrun
from pictures import folder
from PIL import Image
from workers.calls import SMALL

import selfsup
import selfsup.evaluate.calls  # what libraries do when imported is no part of a call
from selfsup.config import LocalViewsConfig, SimCLRConfig, TripletConfig

pytestmark = pytest.mark.slow

CALLS = ROOT / "tests" / "workers" / "calls.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> selfsup.TrainedRun:
    out = tmp_path_factory.mktemp("runs") / "a"
    return selfsup.pretrain(data, out=out, batch=8, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_calls_work_in_a_script_on_any_number_of_processes(
    data: Path, tmp_path: Path, processes: int
) -> None:
    start = [sys.executable] if processes == 1 else torchrun(processes)
    done = run(*start, CALLS, data, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "k-NN, k 20, T 0.1" in done.stdout
    assert done.stdout.count("embedded (24, 128) 24 class0") == processes
    assert done.stdout.count("hit Hit(name='class0/0.png', label='class0'") == processes
    assert done.stdout.count("loaded (1, 128)") == processes
    assert f"{processes} x cpu" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_error_of_the_main_process_leaves_no_other_behind(
    data: Path, trained: selfsup.TrainedRun
) -> None:
    script = ROOT / "tests" / "workers" / "error_then_embed.py"
    done = run(*torchrun(2), script, data, trained.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused: ") == 2
    expected = selfsup.embed(trained, data).x.double().sum().item()
    sums = [float(number) for number in re.findall(r"sum (\d+\.\d+)", done.stdout)]
    assert sums == pytest.approx([expected] * 2, abs=1e-6)


@pytest.mark.slow
def test_the_calls_work_in_a_notebook_and_progress_moves(data: Path, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    v4: Any = importlib.import_module("nbformat.v4")

    lines = CALLS.read_text().replace("sys.argv[1]", repr(str(data)))
    lines = lines.replace("sys.argv[2]", repr(str(tmp_path / "runs")))
    again = "selfsup.pretrain(images, out=runs / 'c', method='dcl', batch=8, **SMALL)"
    cells = [v4.new_code_cell(source) for source in (lines, again)]
    notebook = v4.new_notebook(cells=cells)
    kernel = {name: value for name, value in environment().items() if name != "PYTEST_XDIST_WORKER"}
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(env=kernel)
    text = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.outputs
    )
    assert "[####################] 4/4  left 00:00:00  loss" in text
    assert "k-NN, k 20, T 0.1" in text
    assert "hit Hit(name='class0/0.png'" in text
    assert "TrainedRun(" in text


def test_a_list_of_images_trains_as_their_folder_does(
    data: Path, trained: selfsup.TrainedRun, tmp_path: Path
) -> None:
    images = [Image.open(file).convert("RGB") for file in sorted(data.rglob("*.png"))]
    of_list = selfsup.pretrain(images, out=tmp_path / "list", batch=8, **SMALL)
    assert [line["loss"] for line in of_list.log] == [line["loss"] for line in trained.log]
    assert of_list.settings["data"].startswith("24 images from Python (list ")
    labels = [file.parent.name for file in sorted(data.rglob("*.png"))]
    z = selfsup.embed(of_list, images, labels=labels)
    same = selfsup.embed(trained, data)
    assert torch.equal(z.x, same.x)
    assert z.labels == same.labels == labels
    assert z.names[3] == "image 3"


@pytest.mark.slow
def test_a_run_on_a_data_set_goes_on_exactly_where_it_was_killed(tmp_path: Path) -> None:
    script = ROOT / "tests" / "workers" / "dataset_run.py"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    commands = [(sys.executable, script, out, "14") for out in (whole, killed)]
    done = run(*commands[0])
    assert done.returncode == 0, done.stderr
    kill_after(random.randint(4, 11), commands[1], killed)
    done = run(*commands[1])
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    last = [out / "checkpoints" / "step-00000014" / "model.safetensors" for out in (whole, killed)]
    assert last[0].read_bytes() == last[1].read_bytes()


def state() -> list[object]:
    """What a call has to leave alone."""
    return [
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        list(map(str, warnings.filters)),
        dict(os.environ),
        torch.distributed.is_initialized(),
    ]


def test_calls_leave_the_process_as_it_was_and_can_be_repeated(
    data: Path, tmp_path: Path, trained: selfsup.TrainedRun
) -> None:
    before = state()
    run = selfsup.pretrain(data, out=tmp_path / "again", batch=8, **SMALL)
    assert state() == before
    assert [line["loss"] for line in run.log] == [line["loss"] for line in trained.log]
    selfsup.evaluate.retrieval(run, data, resamples=10)
    selfsup.search(run, data, data / "class0" / "0.png", k=2)
    assert state() == before


def test_a_method_is_a_name_a_dict_or_a_config(data: Path, tmp_path: Path) -> None:
    ways: dict[str, Any] = {
        "name": "simclr",
        "dict": {"temperature": 0.3},
        "config": SimCLRConfig(temperature=0.3),
    }
    runs = {
        key: selfsup.pretrain(data, out=tmp_path / key, method=method, batch=8, **SMALL)
        for key, method in ways.items()
    }
    temperature = {key: run.settings["method"]["temperature"] for key, run in runs.items()}
    assert temperature == {"name": 0.2, "dict": 0.3, "config": 0.3}
    loss = TripletConfig(margin=0.3, dim=8)
    tuned = selfsup.finetune(
        data, out=tmp_path / "t", loss=loss, **(SMALL | {"classes": 3, "images": 2})
    )
    assert tuned.settings["method"] == tuned.settings["method"] | {"name": "triplet", "margin": 0.3}
    assert selfsup.load(tuned).embed([data / "class0" / "0.png"]).shape == (1, 8)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "batch_size": ({"batch_size": 3}, "batch_size: here it is batch"),
    "lr": ({"lr": 0.1}, 'lr: here it is optim={"lr": ...}'),
    "type": ({"batch": "x"}, "batch must be a whole number, not 'x'"),
    "guess": ({"epoch": 3}, "unknown setting 'epoch' (did you mean 'epochs'?)"),
    "nested": ({"views": {"sise": 3}}, "views: unknown setting 'sise' (did you mean 'size'?)"),
    "number": ({"optim": 3}, "optim must hold settings by name (name, lr, rule...), not 3"),
    "method": ({"method": "simclear"}, "there is no method 'simclear' (did you mean 'simclr'?)"),
    "steps": ({"steps": 0}, "--steps must be above 0, not 0"),
    "keep": ({"keep": 0}, "--keep must be above 0, not 0"),
    "log_every": ({"log_every": 0}, "--log-every must be above 0, not 0"),
    "labels": ({"labels": [1, 2]}, "labels of files are the name of a column"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_call_raises_one_sentence(data: Path, tmp_path: Path, what: str) -> None:
    settings, sentence = WRONG[what]
    before = torch.get_rng_state()
    with pytest.raises(selfsup.UserError) as caught:
        selfsup.pretrain(data, out=tmp_path / "x", **(SMALL | {"batch": 8} | settings))
    assert sentence in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_does_not_go_on_with_other_images_or_labels(data: Path, tmp_path: Path) -> None:
    images = [Image.open(file).convert("RGB") for file in sorted(data.rglob("*.png"))]
    first, other = [i % 4 for i in range(24)], [i // 6 for i in range(24)]
    flags = SMALL | {"classes": 3, "images": 2, "method": {"dim": 8}}
    selfsup.finetune(images, out=tmp_path / "r", labels=first, **flags)
    selfsup.finetune(images, out=tmp_path / "r", labels=first, **flags)
    for changed, labels in ((images, other), (images[::-1], first)):
        with pytest.raises(selfsup.UserError, match="was started with other settings"):
            selfsup.finetune(changed, out=tmp_path / "r", labels=labels, **flags)


def test_a_loss_or_a_miner_is_given_once(data: Path, tmp_path: Path) -> None:
    for name, value in (("loss", "triplet"), ("miner", "random")):
        given: dict[str, Any] = {name: value, "method": {name: value}}
        with pytest.raises(selfsup.UserError, match=f"{name} and method="):
            selfsup.finetune(data, out=tmp_path / "x", **given)


def test_a_search_that_cannot_be_is_one_sentence(data: Path, trained: selfsup.TrainedRun) -> None:
    z = selfsup.embed(trained, data)
    with pytest.raises(selfsup.UserError, match="k must be above 0, not 0"):
        selfsup.search(trained, z, z, k=0)
    narrow = z._replace(x=z.x[:, :3])
    with pytest.raises(selfsup.UserError, match="wide and the gallery 3"):
        selfsup.search(trained, narrow, z)


def test_paths_and_runs_fit_wherever_text_does(data: Path, trained: selfsup.TrainedRun) -> None:
    table = selfsup.evaluate.knn(trained, data, against=[trained], baselines=[], resamples=10)
    assert len(table.baselines) == 1
    with pytest.raises(selfsup.UserError, match="against must be a list of text, not 'x'"):
        selfsup.evaluate.knn(trained, data, against="x")


def test_the_sentence_is_the_one_that_the_command_prints(tmp_path: Path) -> None:
    with pytest.raises(selfsup.UserError) as caught:
        selfsup.pretrain(tmp_path / "imagse", out=tmp_path / "x")
    flags = ("--data", tmp_path / "imagse", "--out", tmp_path / "x")
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.stderr.strip() == f"error: {caught.value}"


def test_searching_takes_a_gallery_that_is_embedded_already(
    data: Path, trained: selfsup.TrainedRun
) -> None:
    files = sorted(data.rglob("*.png"))[:2]
    z = selfsup.embed(trained, data)
    hits = selfsup.search(trained, z, files, k=3)
    assert [hits[0][0].name, hits[1][0].name] == ["class0/0.png", "class0/1.png"]
    alone = selfsup.search(trained, data, files[0], k=3)
    assert [(hit.name, hit.label) for hit in hits[0]] == [(hit.name, hit.label) for hit in alone]
    assert hits[0][0].similarity == pytest.approx(1, abs=1e-5)
    assert selfsup.search(trained, z, z, k=1)[5][0].name == z.names[5]


def test_labels_of_test_images_and_queries_are_given_beside_them(
    data: Path, trained: selfsup.TrainedRun
) -> None:
    files = sorted(data.rglob("*.png"))
    images = [Image.open(file).convert("RGB") for file in files]
    labels = [file.parent.name for file in files]
    quiet: dict[str, Any] = {"baselines": [], "resamples": 10}
    half: dict[str, Any] = {"labels": labels[::2], "test": images[1::2]}
    figures = selfsup.evaluate.knn(
        trained, images[::2], **half, test_labels=labels[1::2], **quiet
    ).figures
    assert figures
    gallery = selfsup.evaluate.retrieval(
        trained,
        images[::2],
        labels=labels[::2],
        queries=images[1::2],
        queries_labels=labels[1::2],
        **quiet,
    )
    assert gallery.figures
    with pytest.raises(selfsup.UserError, match="test_labels are of images in memory"):
        selfsup.evaluate.knn(trained, data, test=data, test_labels=labels)


def test_labels_of_a_search_are_the_gallerys(data: Path, trained: selfsup.TrainedRun) -> None:
    files = sorted(data.rglob("*.png"))
    images = [Image.open(file).convert("RGB") for file in files]
    labels = [f"thing {i}" for i in range(len(files))]
    hits = selfsup.search(trained, images, images[:2], labels=labels, k=1)
    assert [row[0].label for row in hits] == ["thing 0", "thing 1"]
    with pytest.raises(selfsup.UserError, match="give labels to embed"):
        selfsup.search(trained, selfsup.embed(trained, data), files[0], labels=labels)


@pytest.mark.parametrize("model", [None, torch.nn.Identity(), 3])
def test_what_is_no_model_is_one_sentence(model: Any, data: Path) -> None:
    for call in (
        selfsup.load,
        lambda m: selfsup.embed(m, data),
        lambda m: selfsup.evaluate.knn(m, data),
    ):
        with pytest.raises(selfsup.UserError, match="a model is a run, a folder or the name"):
            call(model)


def test_a_config_may_stand_inside_a_dict(data: Path, tmp_path: Path) -> None:
    views = {"size": 16, "local": LocalViewsConfig(views=1, size=8)}
    run = selfsup.pretrain(
        data, out=tmp_path / "r", method="swav", batch=8, **(SMALL | {"views": views})
    )
    assert run.settings["views"]["local"]["size"] == 8
    with pytest.raises(selfsup.UserError, match="views: local must hold settings by name"):
        selfsup.pretrain(data, out=tmp_path / "s", views={"local": SimCLRConfig()})


def test_the_report_of_images_in_memory_shows_them(data: Path, tmp_path: Path) -> None:
    images = [Image.open(file).convert("RGB") for file in sorted(data.rglob("*.png"))]
    flags = SMALL | {"report": True}
    run = selfsup.pretrain(images, out=tmp_path / "r", batch=8, **flags)
    page = (run.folder / "report.html").read_text()
    assert "cannot be drawn again" not in page
    assert "Not shown" not in page


def test_a_data_set_that_readers_cannot_have_is_one_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(torch.utils.data.Dataset[Image.Image]):
        def __len__(self) -> int:
            return 24

        def __getitem__(self, position: int) -> Image.Image:
            return Image.new("RGB", (20, 20), (position * 10, 0, 0))

    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    run = selfsup.pretrain(Local(), out=tmp_path / "a", batch=8, **(SMALL | {"workers": None}))
    assert run.log[-1]["step"] == 4
    with pytest.raises(selfsup.UserError, match="cannot be sent to reader processes"):
        selfsup.pretrain(Local(), out=tmp_path / "b", batch=8, **(SMALL | {"workers": 1}))


def test_every_public_name_is_there_with_a_docstring() -> None:
    names = {"pretrain", "finetune", "embed", "search", "load", "evaluate", "UserError"}
    assert names <= set(dir(selfsup))
    for name in selfsup.__all__:
        if name != "__version__":
            assert getattr(selfsup, name).__doc__, name
