"""Killing a run and giving the same command again, through real processes and signals."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT, called, kill_after, logged, recipe_command, run, torchrun
from pictures import folder
from teachers import teacher

from selfsup.catalog import methods
from selfsup.training import checkpoint

pytestmark = pytest.mark.slow

STEPS = 14
TINY = (
    *(
        "--encoder.args",
        "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}",
    ),
    *("--views.size", "16", "--method.hidden", "16", "--method.dim", "8", "--batch", "8"),
    *("--steps", str(STEPS), "--log-every", "1", "--save-every", "3"),
)


def command(data: Path, out: Path, processes: int, workers: int) -> list[str | Path]:
    flags = ("--data", data, "--out", out, "--workers", str(workers), *TINY)
    return recipe_command("recipes/pretrain_simclr.py", *flags, processes=processes)


def weights(out: Path) -> str:
    """What a finished run computed: weights and optimiser of the last step."""
    last = out / "checkpoints" / f"step-{STEPS:08d}"
    files = ("model.safetensors", "optimizer.safetensors")
    return hashlib.sha256(b"".join((last / name).read_bytes() for name in files)).hexdigest()


GRID = pytest.mark.grid


@pytest.mark.parametrize(
    ("processes", "workers"),
    [(1, 0), pytest.param(1, 2, marks=GRID), pytest.param(2, 0, marks=GRID), (2, 2)],
)
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, processes: int, workers: int
) -> None:
    data = folder(tmp_path / "images")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    done = run(*command(data, unbroken, processes, workers))
    assert done.returncode == 0, done.stderr
    again = command(data, killed, processes, workers)
    kill_after(random.randint(4, STEPS - 3), again, killed)
    done = run(*again)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert f"{processes} x cpu" in done.stdout
    assert weights(killed) == weights(unbroken)
    assert logged(killed) == STEPS  # steps done twice are logged once


@pytest.mark.parametrize(
    ("nth", "place"),
    [
        (1, 1),
        (3, 2),
        pytest.param(2, 4, marks=GRID),  # before the renaming
        (3, 5),  # after it, before old ones are removed
    ],
)
def test_a_run_that_is_killed_while_a_thread_writes_ends_with_the_same_weights(
    tmp_path: Path, nth: int, place: int
) -> None:
    data = folder(tmp_path / "images")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    done = run(*command(data, unbroken, 1, 0))
    assert done.returncode == 0, done.stderr
    again = command(data, killed, 1, 0)
    script = ROOT / "tests" / "workers" / "killed_save.py"
    done = run(sys.executable, script, str(nth), str(place), *again[2:], PYTHONPATH=str(ROOT))
    assert done.returncode == -signal.SIGKILL, done.stderr
    steps = checkpoint.steps_of(killed)
    whole = nth if place == 5 else nth - 1
    assert max(steps, default=0) == 3 * whole  # a checkpoint each 3 steps
    assert logged(killed) > 3 * nth  # training had gone on
    done = run(*again)
    assert done.returncode == 0, done.stderr
    assert ("going on from step" in done.stdout) == (whole > 0)
    assert weights(killed) == weights(unbroken)
    assert not list((killed / "checkpoints").glob(".*"))


FOLLOWED = ("--distil.loss", "cosine", "--distil.weight", "0.5", "--distil.teacher")
LABELLED = {
    "finetune_triplet": ("--method.memory.size", "20", "--method.first", "random"),
    "finetune_pairs": ("--method.memory.size", "20"),
    "finetune_proxies": ("--method.loss", "arcface"),
}


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("finetune_triplet", 1),
        *(pytest.param(name, 1, marks=GRID) for name in ("finetune_pairs", "finetune_proxies")),
        *(pytest.param(name, 2, marks=GRID) for name in LABELLED),
    ],
)
def test_memories_proxies_and_drawn_triplets_survive_a_kill(
    tmp_path: Path, name: str, processes: int
) -> None:
    data = folder(tmp_path / "images")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    shared = (*TINY[:4], "--method.dim", "8", "--classes", "4", "--images", "2", *TINY[-6:])
    flags = ("--data", str(data), *shared, *LABELLED[name], "--out")
    runs = [
        recipe_command(f"recipes/{name}.py", *flags, out, processes=processes)
        for out in (unbroken, killed)
    ]
    done = run(*runs[0])
    assert done.returncode == 0, done.stderr
    kill_after(random.randint(4, STEPS - 3), runs[1], killed)
    done = run(*runs[1])
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert f"{processes} x cpu" in done.stdout
    assert weights(killed) == weights(unbroken)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=GRID)])
def test_a_ranking_run_that_follows_a_teacher_survives_a_kill(
    tmp_path: Path, processes: int
) -> None:
    data = folder(tmp_path / "images")
    teacher(tmp_path / "teacher")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    shared = (*TINY[:4], "--method.dim", "8", "--classes", "4", "--images", "2", *TINY[-6:])
    followed = (*LABELLED["finetune_triplet"], *FOLLOWED, str(tmp_path / "teacher"))
    flags = ("--data", str(data), *shared, *followed, "--out")
    runs = [
        recipe_command("recipes/finetune_triplet.py", *flags, out, processes=processes)
        for out in (unbroken, killed)
    ]
    done = run(*runs[0])
    assert done.returncode == 0, done.stderr
    assert f"{processes} x cpu" in done.stdout
    kill_after(random.randint(4, STEPS - 3), runs[1], killed)
    done = run(*runs[1])
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert "the teacher embeds" not in done.stdout
    assert weights(killed) == weights(unbroken)


HEADS = ("--method.hidden", "8", "--method.dim", "8")
CROPS = ("--views.local.size", "8", "--method.prototypes", "12", "--method.frozen", "0.1")
VIT = ("--encoder.args", "{embed_dim: 16, depth: 1, num_heads: 2, patch_size: 4}")
CONTRAST = ("--method.simclr", "0.5", "--views.views", "2")
SPECIAL = {
    "moco_v2": (*HEADS, "--method.queue", "20"),
    "vicreg": (*HEADS, "--optim.name", "lars"),
    "swav": (*HEADS, *CROPS, "--method.queue", "20", "--method.start", "0.3"),
    "dino": (*HEADS, *CROPS),
    "dinov2": (*HEADS, *CROPS, *VIT),
    "mae": ("--method.dim", "8", "--method.heads", "2", "--method.depth", "1", *VIT),
    "distil": (*HEADS, "--method.loss", "queue", "--method.queue", "20", *CONTRAST),
    "nnclr": (*HEADS, "--method.queue", "20"),
    "lejepa": (*HEADS, "--views.local.size", "8"),
}
"""What a method needs besides small heads."""
METHODS = {
    name: SPECIAL.get(name, HEADS)
    for name in (method.replace("-", "_") for method in methods())
    if name != "simclr"  # killed above
}


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("swav", 1),
        *(pytest.param(name, 1, marks=GRID) for name in METHODS if name != "swav"),
        *(
            pytest.param(name, 2, marks=GRID)
            for name in ("moco_v2", "swav", "dino", "dinov2", "mae", "distil")
        ),
    ],
)
def test_every_pretraining_recipe_survives_a_kill(
    tmp_path: Path, name: str, processes: int
) -> None:
    data = folder(tmp_path / "images")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    encoder: tuple[str, ...] = () if VIT[0] in METHODS[name] else TINY[:2]
    size = (*encoder, *TINY[2:4])
    flags = ["--data", str(data), *size, *METHODS[name], *TINY[-8:], "--workers", "0"]
    if name == "distil":
        flags += ["--method.teacher", str(teacher(tmp_path / "teacher"))]
    script = f"recipes/pretrain_{name}.py"
    runs = [
        recipe_command(script, *flags, "--out", out, processes=processes)
        for out in (unbroken, killed)
    ]
    done = run(*runs[0])
    assert done.returncode == 0, done.stderr
    assert f"{processes} x cpu" in done.stdout
    assert (unbroken / "encoder" / "model.safetensors").exists()
    assert json.loads((unbroken / "log.jsonl").read_text().splitlines()[-1])["step"] == STEPS
    kill_after(random.randint(4, STEPS - 3), runs[1], killed)
    done = run(*runs[1])
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert weights(killed) == weights(unbroken)


RATES = ("--optim.layer-decay", "0.7", "--optim.head-factor", "10", "--checkpoint-activations")
SMALL_VIT = ("--encoder.name", "test_vit", "--encoder.args", "{depth: 3, drop_path_rate: 0.3}")
ADAPTED = {
    "lora": (*SMALL_VIT, "--views.size", "16", "--lora", "4", "--freeze", "2", *RATES),
    "freeze": (*TINY[:4], "--freeze", "2", *RATES),
}
"""Settings that adapt an encoder; BYOL's teacher is adapted with it."""


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("lora", 1),
        *(pytest.param(*case, marks=GRID) for case in (("freeze", 1), ("lora", 2), ("freeze", 2))),
    ],
)
def test_an_adapted_encoder_survives_a_kill(tmp_path: Path, name: str, processes: int) -> None:
    data = folder(tmp_path / "images")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    flags = ("--data", str(data), *ADAPTED[name], *HEADS, *TINY[-8:], "--workers", "0", "--out")
    runs = [
        recipe_command("recipes/pretrain_byol.py", *flags, out, processes=processes)
        for out in (unbroken, killed)
    ]
    done = run(*runs[0])
    assert done.returncode == 0, done.stderr
    assert "frozen     " in done.stdout
    assert f"{processes} x cpu" in done.stdout
    kill_after(random.randint(4, STEPS - 3), runs[1], killed)
    done = run(*runs[1])
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert weights(killed) == weights(unbroken)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Images, a finished run on them, and what it printed."""
    root = tmp_path_factory.mktemp("finished")
    data, out = folder(root / "images"), root / "run"
    done = run(*command(data, out, 1, 0))
    assert done.returncode == 0, done.stderr
    return data, out, done.stdout


@pytest.fixture
def again(finished: tuple[Path, Path, str], tmp_path: Path) -> tuple[Path, list[str | Path]]:
    """A copy of the finished run, and the command that made it."""
    out = tmp_path / "run"
    shutil.copytree(finished[1], out)
    return out, command(finished[0], out, 1, 0)


def call(args: list[str | Path], *more: str) -> subprocess.CompletedProcess[str]:
    """Give the command again, in this process: python, the script, its flags."""
    return called("recipes/pretrain_simclr.py", *args[2:], *more)


def test_a_damaged_newest_checkpoint_is_skipped_and_named(
    again: tuple[Path, list[str | Path]],
) -> None:
    out, args = again
    whole = weights(out)
    with (out / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    done = call(args)
    assert done.returncode == 0, done.stderr
    assert f"skipped step-{STEPS:08d}: model.safetensors has 100 bytes" in done.stdout
    assert weights(out) == whole


def test_no_whole_checkpoint_stops_and_starts_nothing(
    again: tuple[Path, list[str | Path]],
) -> None:
    out, args = again
    for manifest in out.glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    before = logged(out)
    done = call(args)
    assert done.returncode == 3
    assert "no checkpoint in" in done.stderr
    assert "Traceback" not in done.stderr
    assert logged(out) == before


def test_a_finished_run_is_left_as_it_is(again: tuple[Path, list[str | Path]]) -> None:
    out, args = again
    before = weights(out)
    done = run(*args)
    assert done.returncode == 0
    assert f"has done all its {STEPS} steps" in done.stdout
    assert weights(out) == before


def test_other_settings_do_not_go_on_with_an_old_run(
    again: tuple[Path, list[str | Path]],
) -> None:
    _, args = again
    done = call(args, "--seed", "1")
    assert done.returncode == 2
    assert "started with other settings (seed 0 -> 1)" in done.stderr


def test_views_are_the_same_on_any_processes_and_workers_after_any_restart(tmp_path: Path) -> None:
    data = folder(tmp_path / "images")
    script = ROOT / "tests" / "workers" / "views_hash.py"
    whole = run(*recipe_command(str(script), data, "0", "6", "0")).stdout.split("\n")
    two = run(*torchrun(2), script, data, "0", "4", "2").stdout.split("\n")
    rest = run(*recipe_command(str(script), data, "4", "6", "2")).stdout.split("\n")
    four = run(*torchrun(4), script, data, "2", "6", "1").stdout.split("\n")
    worlds = [lines[0] for lines in (whole, two, rest, four)]
    assert worlds == ["world 1", "world 2", "world 1", "world 4"]
    assert len(whole[1:7]) == len(set(whole[1:7])) == 6
    assert [*two[1:5], *rest[1:3]] == whole[1:7]
    assert four[1:5] == whole[3:7]


def test_a_run_of_two_processes_goes_on_with_one(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "images"), tmp_path / "run"
    kill_after(7, command(data, out, 2, 0), out)
    done = run(*command(data, out, 1, 0))
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert (out / "encoder" / "model.safetensors").exists()


def test_a_run_says_what_it_is_about_to_do(finished: tuple[Path, Path, str]) -> None:
    assert "24 images, 14 steps of 8, 1 x cpu" in finished[2]
