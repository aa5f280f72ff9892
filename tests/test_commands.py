"""Every recipe and tool from its command line, and what it says to wrong input."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from launch import FINETUNE, PRETRAIN, ROOT, called, recipe, run, unplugged
from pictures import folder

pytestmark = pytest.mark.slow

ALONE = ("--baselines",)  # without any


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "simclr"
    flags = ("--data", data, "--out", out, *PRETRAIN, "--track", "tensorboard")
    done = recipe("recipes/pretrain_simclr.py", *flags, "--probe.data", data, "--probe.every", "2")
    assert done.returncode == 0, done.stderr
    return out


def test_the_main_job_from_the_command_line(data: Path, pretrained: Path, tmp_path: Path) -> None:
    log = [json.loads(line) for line in (pretrained / "log.jsonl").read_text().splitlines()]
    assert {"loss", "images_per_s", "waiting", "lr", "std", "rank", "cosine"} <= log[0].keys()
    assert [line["step"] for line in log if "knn" in line] == [2, 4]
    assert list(pretrained.rglob("events.out.tfevents.*"))

    out = tmp_path / "triplet"
    flags = ("--data", data, "--init", pretrained, "--out", out, *FINETUNE)
    done = recipe("recipes/finetune_triplet.py", *flags)
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {
        "active",
        "skipped",
        "relative_loss",
        "gap",
        "nearest",
        "positive",
        "negative",
        "state",
    } <= log[0].keys()
    assert "epoch      4 batches of 3 classes x 2 images" in done.stdout
    assert "positives  1 per anchor" in done.stdout

    for tool, name in (("knn", "k-NN, k 20, T 0.1"), ("linear", "linear probe")):
        done = called(f"tools/{tool}.py", "--model", out, "--data", data, "--test", data, *ALONE)
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
        found = json.loads((out / f"{tool}.json").read_text())
        assert 0 <= found["figures"][name]["low"] <= found["figures"][name]["high"] <= 1
        assert found["facts"]["unreadable"] == 0


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("finetune_pairs", ("--method.miner", "multi-similarity", "--method.memory.size", "9")),
        ("finetune_pairs", ("--method.loss", "n-pairs-angular", "--method.n-pairs.degrees", "40")),
        ("finetune_proxies", ("--method.loss", "proxy-anchor", "--method.lr", "10")),
        ("finetune_triplet", ("--method.first", "semi-hard", "--method.switch", "0.5")),
    ],
)
def test_every_family_of_ranking_losses_trains_and_exports(
    data: Path, tmp_path: Path, name: str, flags: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    done = called(f"recipes/{name}.py", "--data", data, "--out", out, *FINETUNE, *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 4
    assert (out / "encoder" / "model.safetensors").exists()


def test_retrieval_on_two_processes_has_the_figures_of_one(data: Path, pretrained: Path) -> None:
    flags = ("--model", pretrained, "--data", data, *ALONE)
    one = called("tools/retrieval.py", *flags, "--out", pretrained / "one.json")
    two = recipe("tools/retrieval.py", *flags, "--out", pretrained / "two.json", processes=2)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    a, b = (json.loads((pretrained / f"{n}.json").read_text()) for n in ("one", "two"))
    assert a["figures"] == b["figures"]
    assert b["facts"]["gallery"] == 24
    assert two.stdout.count("MAP@R") == 1


def test_a_timm_name_and_raw_pixels_are_subjects_too(data: Path, tmp_path: Path) -> None:
    for model, title in (("test_resnet", "test_resnet (random weights)"), ("pixels", "raw pixels")):
        flags = ("--model", model, "--data", data, "--size", "32", "--out", tmp_path / "found.json")
        done = called("tools/knn.py", *flags, *ALONE)
        assert done.returncode == 0, done.stderr
        assert title in done.stdout
    assert json.loads((tmp_path / "found.json").read_text())["facts"]["queries"] == 24


def test_a_run_starts_again_from_its_own_config_file(pretrained: Path, tmp_path: Path) -> None:
    flags = ("--config", pretrained / "config.yaml", "--out", tmp_path / "again", "--track", "")
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    same = [
        (r / "encoder" / "model.safetensors").read_bytes() for r in (pretrained, tmp_path / "again")
    ]
    assert same[0] == same[1]


def test_a_bad_image_is_replaced_counted_and_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "images")
    (data / "class0" / "0.png").write_bytes(b"no image")
    flags = ("--data", data, "--out", tmp_path / "run", *PRETRAIN)
    stopped = called("recipes/pretrain_simclr.py", *flags)
    assert stopped.returncode == 3
    assert "1 of 24 images cannot be read (4.2%), more than --max-bad 1.0%" in stopped.stderr
    done = called("recipes/pretrain_simclr.py", *flags, "--max-bad", "0.1")
    assert done.returncode == 0, done.stderr
    assert (
        "class0/0.png,UnidentifiedImageError" in (tmp_path / "run" / "bad_images.csv").read_text()
    )


def test_nothing_needs_the_network(data: Path, tmp_path: Path) -> None:
    paths = unplugged(tmp_path / "blocked")
    script = ROOT / "recipes" / "pretrain_simclr.py"
    flags = ("--data", data, "--out", tmp_path / "run", *PRETRAIN)
    done = run(sys.executable, script, *flags, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    tool = ROOT / "tools" / "knn.py"
    done = run(sys.executable, tool, "--model", tmp_path / "run", "--data", data, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr


def test_every_ranking_loss_is_compared_from_the_command_line(tmp_path: Path) -> None:
    short = ("--seeds", "1", "--pretraining", "1", "--steps", "1", "--resamples", "10")
    done = called("tools/compare_losses.py", "--out", tmp_path, *short)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == 20
    figures = json.loads((tmp_path / "losses.json").read_text())
    assert all(0 <= f["low"] <= f["value"] <= f["high"] <= 1 for f in figures.values())


@pytest.mark.parametrize(
    "name", ["dino", *(pytest.param(name, marks=pytest.mark.grid) for name in ("dinov2", "mae"))]
)
def test_methods_are_compared_in_equal_time_and_go_on_where_they_stopped(
    data: Path, tmp_path: Path, name: str
) -> None:
    short = ("--minutes", "0.001", "--batch", "8", "--only", name, "--resamples", "10")
    flags = ("--data", data, "--test", data, "--out", tmp_path, *short)
    done = called("tools/compare_methods.py", *flags)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan[name]["steps"] == max(1, round(0.06 * plan[name]["images_per_s"] / 8))
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in table[2:]] == ["| random weights", f"| {name}"]
    again = called("tools/compare_methods.py", *flags)
    assert again.returncode == 0, again.stderr
    assert "step " not in again.stdout
    assert again.stdout.splitlines()[-4:] == table


@pytest.mark.grid
def test_the_benchmark_of_adaptation_measures_every_way() -> None:
    flags = (
        "--encoders",
        "test_vit",
        "test_resnet",
        "--size",
        "32",
        "--batch",
        "8",
        "--steps",
        "1",
    )
    done = recipe("tools/bench/bench_adapt.py", *flags)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| test_vit"] * 5 + ["| test_resnet"] * 4
    trained = {(row[0], row[1]): int(row[2].replace(",", "")) for row in rows}
    for encoder in ("| test_vit", "| test_resnet"):
        of_all = trained[encoder, "all layers"]
        assert trained[encoder, "--checkpoint-activations"] == of_all
        assert trained[encoder, "--freeze all"] < trained[encoder, "--freeze, half of the blocks"]
        assert trained[encoder, "--freeze, half of the blocks"] < of_all


@pytest.mark.grid
def test_the_memory_benchmark_compares_both_ways(tmp_path: Path) -> None:
    flags = ("--encoder", "test_resnet", "--size", "32", "--small", "8", "--large", "32")
    done = recipe("tools/bench/bench_memory.py", *flags)
    assert done.returncode == 0, done.stderr
    at_once, micro, gradient = done.stdout.splitlines()
    assert "batch 8 at once: peak" in at_once
    assert "batch 32 in micro-batches of 8: peak" in micro
    match = re.search(r"difference of any gradient (\S+) of (\S+) \(float64\)", gradient)
    assert match is not None
    difference, largest = map(float, match.groups())
    assert difference < 1e-12 < largest


def test_the_benchmark_names_what_it_needs(tmp_path: Path) -> None:
    for peer in ("lightly", "pytorch_metric_learning"):
        (tmp_path / f"{peer}.py").write_text("raise ImportError")
    paths = f"{tmp_path}:{ROOT}"
    done = run(sys.executable, ROOT / "tools" / "bench" / "bench_losses.py", PYTHONPATH=paths)
    assert done.returncode == 2
    assert "pip install 'selfsup[bench]'" in done.stderr


def test_the_wheel_has_recipes_and_tools(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    built = run(*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("selfsup-*.whl")
    installed = run(*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel)
    assert installed.returncode == 0, installed.stderr
    for module in ("selfsup", "selfsup.recipes.pretrain_simclr", "selfsup.tools.knn"):
        command = (sys.executable, "-P", "-m", module, "--help")
        done = run(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout


PROCESSES: dict[str, tuple[list[str], str]] = {
    "audit": (["--data", "{data}", "--out", "{tmp}/audit.json"], "24: 24 can be read"),
    "pack": (["--data", "{data}", "--out", "{tmp}/x.pack", "--format", "raw"], "24 images"),
    "views": (["--data", "{data}", "--page", "{tmp}/v.html", "--views.size", "16"], "16 images"),
    "knn": (["--model", "{run}", "--data", "{data}", "--out", "{tmp}/k.json"], "k-NN, k 20"),
    "linear": (["--model", "{run}", "--data", "{data}", "--out", "{tmp}/l.json"], "linear probe"),
    "verify": (["--model", "{run}", "--data", "{data}", "--out", "{tmp}/v.json"], "AUC"),
    "bundle": (["{run}", "{tmp}/bundle"], "{tmp}/bundle"),
    "report": (["{run}", "--out", "{tmp}/r.html"], "{tmp}/r.html"),
}
"""Each tool once as a process of its own, with a word of what it prints; other tests have the
others."""


@pytest.mark.parametrize("tool", PROCESSES)
def test_a_tool_runs_as_a_process_of_its_own(
    data: Path, pretrained: Path, tmp_path: Path, tool: str
) -> None:
    flags, word = PROCESSES[tool]
    places = {"data": data, "run": pretrained, "tmp": tmp_path}
    if tool == "views":
        flags = [*flags, "--batch", "16"]
    done = run(sys.executable, "-m", "selfsup", tool, *(flag.format(**places) for flag in flags))
    assert done.returncode == 0, done.stderr
    assert word.format(**places) in done.stdout.replace("\n", "")


def test_an_audit_a_pack_and_views_from_the_command_line(data: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(data, mixed)
    (mixed / "class0" / "bad.png").write_bytes(b"broken")
    shutil.copy(mixed / "class0" / "0.png", mixed / "class0" / "copy.png")
    audit = tmp_path / "audit.json"
    done = called("tools/audit.py", "--data", mixed, "--out", audit)
    assert done.returncode == 0, done.stderr
    assert "26: 25 can be read, 1 cannot" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert (tmp_path / "audit.html").exists()

    packed = tmp_path / "x.pack"
    done = called("tools/pack.py", "--data", mixed, "--out", packed, "--format", "raw")
    assert done.returncode == 0, done.stderr
    assert "25 images" in done.stdout
    assert "1 left out" in done.stdout
    assert called("tools/pack.py", "--check", packed).returncode == 0
    damaged = bytearray(packed.read_bytes())
    damaged[5000] ^= 1
    packed.write_bytes(damaged)
    done = called("tools/pack.py", "--check", packed)
    assert done.returncode == 2
    assert "1 image of" in done.stderr

    flags = ("--data", mixed, "--audit", audit, "--mask-duplicates", *PRETRAIN)
    done = called("recipes/pretrain_simclr.py", *flags, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "bad_images.csv").exists()

    page = tmp_path / "views.html"
    done = called("tools/views.py", "--method", "moco-v2", "--step", "2", "--page", page, *flags)
    assert done.returncode == 0, done.stderr
    assert page.read_text().count("<img") >= 24
    file = tmp_path / "byol.yaml"
    file.write_text("method: {name: byol}\nviews: {size: 16}\n")
    done = called("tools/views.py", "--config", file, "--page", page, "--data", mixed)
    assert "byol, step 0" in page.read_text(), done.stderr
    done = called("tools/views.py", "--pipeline", "documents", "--page", page, "--data", mixed)
    assert done.returncode == 0, done.stderr
    done = called("tools/views.py", "--method", "simcl", "--data", mixed)
    assert done.returncode == 2
    assert "no method 'simcl' (did you mean 'simclr'?)" in done.stderr


def test_images_of_five_channels_through_the_main_job(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", draw.integers(0, 256, (24, 16, 16, 5), dtype=np.uint8))
    np.save(tmp_path / "x.labels.npy", np.arange(24) % 3)
    channels = [f"--views.{name}" for name in ("saturation", "hue", "grey")]
    plain = [word for flag in channels for word in (flag, "0")]
    five = ["--views.mean", *["0.5"] * 5, "--views.std", *["0.25"] * 5, "--views.gain", "0.3"]
    out, data = tmp_path / "run", tmp_path / "x.npy"
    flags: list[str | Path] = ["--data", data, "--out", out, *PRETRAIN, *five]
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 2
    assert "5 channels have no colours: --views.saturation 0, --views.hue 0" in done.stderr
    done = called("recipes/pretrain_simclr.py", *flags, *plain)
    assert done.returncode == 0, done.stderr
    done = called("tools/knn.py", "--model", out, "--data", data, "--k", "3")
    assert done.returncode == 0, done.stderr


def test_a_mixture_with_weights_trains(data: Path, tmp_path: Path) -> None:
    mixed = f"{data} * 3 + {data} * 1"
    done = called("recipes/pretrain_simclr.py", "--data", mixed, "--out", tmp_path / "r", *PRETRAIN)
    assert done.returncode == 0, done.stderr
    assert "48 images" in done.stdout
