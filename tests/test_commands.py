"""Every recipe and tool from its command line, and what it says to wrong input."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import ROOT, called, recipe, run, unplugged
from pictures import folder, picture

pytestmark = pytest.mark.slow

SMALL = "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
TINY = ("--encoder.args", SMALL, "--views.size", "16", "--log-every", "2")
PRETRAIN = (*TINY, "--method.hidden", "16", "--method.dim", "8", "--batch", "8", "--steps", "4")
FINETUNE = (*TINY, "--classes", "3", "--images", "2", "--steps", "4", "--method.dim", "8")


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
    assert {"active", "skipped", "from_margin", "positive", "negative", "state"} <= log[0].keys()
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
    assert stopped.returncode == 2
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


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('executed', 'w')",))


def prepare(root: Path) -> None:
    """Wrong inputs, by name, in one folder."""
    folder(root / "images")
    folder(root / "one_class", classes=1)
    (root / "empty").mkdir()
    (root / "flat").mkdir()
    for i in range(12):
        picture(0, i).save(root / "flat" / f"{i}.png")
    torch.save({"conv1.weight": Evil()}, root / "evil.pth")
    torch.save({"other.weight": torch.zeros(2)}, root / "other.pth")
    np.savez(root / "float.npz", images=np.zeros((4, 8, 8, 3), np.float32))
    (root / "typo.yaml").write_text("seed: 1\noptim:\n  learning: 0.1\n")
    (root / "mistyped.yaml").write_text("seed: 1\n\nbatch: many\n")


PRE, FINE = "recipes/pretrain_simclr.py", "recipes/finetune_triplet.py"
PAIRS = "recipes/finetune_pairs.py"
RIGHT = ("--method.loss", "angular", "--method.n-pairs.degrees", "90")
SUPCON = ("--method.loss", "supcon", "--method.miner", "multi-similarity")
WRONG = {
    "missing folder": (PRE, ["--data", "imagse", *PRETRAIN], "imagse does not exist (did you mean"),
    "no images": (PRE, ["--data", "empty", *PRETRAIN], "empty holds no images"),
    "small folder": (
        PRE,
        ["--data", "flat", *PRETRAIN, "--batch", "64"],
        "12 images are fewer than",
    ),
    "no labels": (FINE, ["--data", "flat", *FINETUNE], "flat has no labels"),
    "one class": (FINE, ["--data", "one_class", *FINETUNE], "all labels are the same"),
    "few classes": (
        FINE,
        ["--data", "images", *FINETUNE, "--classes", "9"],
        "fits is --classes 4 --images 2",
    ),
    "code in a pickle": (
        PRE,
        ["--data", "images", *PRETRAIN, "--encoder.weights", "evil.pth"],
        "evil.pth is a pickle with more than tensors in it",
    ),
    "other weights": (
        PRE,
        ["--data", "images", *PRETRAIN, "--encoder.weights", "other.pth"],
        "other.pth matches 0 of ",
    ),
    "unknown setting": (
        PRE,
        ["--data", "images", "--config", "typo.yaml"],
        "typo.yaml, line 3: unknown setting 'learning'",
    ),
    "mistyped setting": (
        PRE,
        ["--data", "images", "--config", "mistyped.yaml"],
        "mistyped.yaml, line 3: batch must be a whole number, not 'many'",
    ),
    "wrong arrays": (
        PRE,
        ["--data", "float.npz", *PRETRAIN],
        "float.npz must hold images as uint8",
    ),
    "no such model": (
        PRE,
        ["--data", "images", *PRETRAIN, "--encoder.name", "resnet81"],
        "timm has no model 'resnet81' (did you mean",
    ),
    "micro-batch": (
        PRE,
        ["--data", "images", *PRETRAIN, "--micro-batch", "3"],
        "--micro-batch 3 does not divide the 8 images",
    ),
    "no encoder": (FINE, ["--data", "images", *FINETUNE, "--init", "empty"], "no exported encoder"),
    "miner of all pairs": (
        PAIRS,
        ["--data", "images", *FINETUNE, *SUPCON],
        "--method.miner has no effect with --method.loss supcon",
    ),
    "memory of tuples": (
        PAIRS,
        ["--data", "images", *FINETUNE, "--method.loss", "angular", "--method.memory.size", "8"],
        "--method.memory has no effect with --method.loss angular",
    ),
    "temperature": (
        PRE,
        ["--data", "images", *PRETRAIN, "--method.temperature", "0"],
        "--method.temperature must be above 0",
    ),
    "products": (
        PRE,
        ["--data", "images", *PRETRAIN, "--method.products", "bfloat16", "--method.loss", "dcl"],
        "--method.products bfloat16 is for nt-xent",
    ),
    "angle": (
        PAIRS,
        ["--data", "images", *FINETUNE, *RIGHT],
        "--method.n-pairs.degrees must be between 0 and 90, not 90",
    ),
    "memory below nothing": (
        FINE,
        ["--data", "images", *FINETUNE, "--method.memory.size", "-1"],
        "a memory holds 0 embeddings or more",
    ),
    "two views of a ranking": (
        FINE,
        ["--data", "images", *FINETUNE, "--views.views", "2"],
        "ranking sees one view of each image",
    ),
    "another loss's setting": (
        "recipes/finetune_proxies.py",
        ["--data", "images", *FINETUNE, "--method.arcface.margin", "0.3"],
        "--method.arcface has no effect with --method.loss proxy-anchor",
    ),
    "another loss's angle": (
        FINE,
        ["--data", "images", *FINETUNE, "--method.degrees", "40"],
        "--method.degrees has no effect with --method.loss margin",
    ),
    "queue without its loss": (
        PRE,
        ["--data", "images", *PRETRAIN, "--method.queue", "8"],
        "--method.queue is for info-nce",
    ),
    "three views": (
        PRE,
        ["--data", "images", *PRETRAIN, "--views.views", "3"],
        "this method compares two views, not 3",
    ),
    "local views of a method of two": (
        PRE,
        ["--data", "images", *PRETRAIN, "--views.local.views", "2"],
        "this method compares two views, not 4",
    ),
    "patches": (
        "recipes/pretrain_dino.py",
        [
            "--data",
            "images",
            "--encoder.name",
            "test_vit",
            "--views.size",
            "32",
            "--views.local.size",
            "50",
        ],
        "test_vit does not take images of 50 pixels: Input height (50) should",
    ),
    "one large view of SwAV": (
        "recipes/pretrain_swav.py",
        ["--data", "images", *PRETRAIN, "--views.views", "1"],
        "SwAV takes codes of 2 views; --views.views is 1",
    ),
    "one view of DINO": (
        "recipes/pretrain_dino.py",
        ["--data", "images", *PRETRAIN, "--views.views", "1", "--views.local.views", "0"],
        "DINO predicts one view from another; --views has 1",
    ),
    "fewer local views than none": (
        "recipes/pretrain_dino.py",
        ["--data", "images", *PRETRAIN, "--views.local.views", "-1"],
        "--views.local.views must be 0 or more: -1",
    ),
    "a batch of one": (
        PRE,
        ["--data", "images", *PRETRAIN, "--batch", "1"],
        "batch norms need 2 images or more at a time",
    ),
    "warm-up in epochs": (
        PRE,
        ["--data", "images", *PRETRAIN, "--optim.warmup", "5"],
        "--optim.warmup is a fraction of the run below 1, not 5",
    ),
    "a probe without labels": (
        PRE,
        ["--data", "images", *PRETRAIN, "--probe.data", "flat"],
        "--probe.data flat has no labels",
    ),
    "teacher": (
        "recipes/pretrain_byol.py",
        ["--data", "images", *PRETRAIN, "--method.teacher.momentum", "2"],
        "--method.teacher.momentum must be from 0 to 1, not 2",
    ),
    "no labels for SupCon": (
        "recipes/pretrain_supcon.py",
        ["--data", "flat", *PRETRAIN],
        "SupCon needs labels",
    ),
    "no such method": ("tools/doctor.py", ["--only", "simsima"], "there is no method 'simsima'"),
    "tracker": (PRE, ["--data", "images", *PRETRAIN, "--track", "nonesuch"], "nonesuch"),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wrong")
    prepare(root)
    return root


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_gets_one_sentence_and_status_2(wrong: Path, what: str) -> None:
    script, flags, sentence = WRONG[what]
    out = wrong / "runs" / what.replace(" ", "-")
    place = () if "doctor" in script else ("--out", out)
    done = called(script, *place, *flags, cwd=wrong)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (wrong / "executed").exists()


def test_a_real_process_ends_with_one_sentence_and_status_2(wrong: Path) -> None:
    script, flags, sentence = WRONG["code in a pickle"]
    done = run(sys.executable, ROOT / script, "--out", wrong / "runs" / "p", *flags, cwd=wrong)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (wrong / "executed").exists()


def test_the_mend_that_an_error_names_works_with_the_same_folder(wrong: Path) -> None:
    flags = ("--data", wrong / "images", "--out", wrong / "runs" / "mended", *FINETUNE)
    refused = called(FINE, *flags, "--classes", "9")
    assert refused.returncode == 2
    assert "the largest that fits is --classes 4 --images 2" in refused.stderr
    done = called(FINE, *flags, "--classes", "4", "--images", "2")
    assert done.returncode == 0, done.stderr


def test_a_batch_that_does_not_divide_is_said_once(wrong: Path) -> None:
    flags = ("--data", wrong / "images", "--out", wrong / "runs" / "odd", *PRETRAIN, "--batch", "9")
    done = recipe(PRE, *flags, processes=2)
    assert done.returncode != 0
    sentence = (
        "error: a batch of 9 images does not divide among 2 processes; the next that does is 10"
    )
    assert done.stderr.count(sentence) == 1


def test_every_ranking_loss_is_compared_from_the_command_line(tmp_path: Path) -> None:
    short = ("--seeds", "1", "--pretraining", "1", "--steps", "1", "--resamples", "10")
    done = called("tools/compare_losses.py", "--out", tmp_path, *short)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == 20
    figures = json.loads((tmp_path / "losses.json").read_text())
    assert all(0 <= f["low"] <= f["value"] <= f["high"] <= 1 for f in figures.values())


def test_methods_are_compared_in_equal_time_and_go_on_where_they_stopped(
    data: Path, tmp_path: Path
) -> None:
    short = ("--minutes", "0.001", "--batch", "8", "--only", "dino", "--resamples", "10")
    flags = ("--data", data, "--test", data, "--out", tmp_path, *short)
    done = called("tools/compare_methods.py", *flags)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["dino"]["steps"] == max(1, round(0.06 * plan["dino"]["images_per_s"] / 8))
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in table[2:]] == ["| random weights", "| dino"]
    again = called("tools/compare_methods.py", *flags)
    assert again.returncode == 0, again.stderr
    assert "step " not in again.stdout
    assert again.stdout.splitlines()[-4:] == table


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


def test_an_unknown_flag_is_an_error_with_a_suggestion(wrong: Path) -> None:
    done = called(PRE, "--data", wrong / "images", "--out", wrong / "x", "--optim.lrr", "1")
    assert done.returncode == 2
    assert "--optim.lr" in done.stderr + done.stdout


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
    assert "1 images of" in done.stderr

    flags = ("--data", mixed, "--audit", audit, "--mask-duplicates", *PRETRAIN)
    done = called("recipes/pretrain_simclr.py", *flags, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "bad_images.csv").exists()

    page = tmp_path / "views.html"
    done = called("tools/views.py", "--method", "moco-v2", "--step", "2", "--page", page, *flags)
    assert done.returncode == 0, done.stderr
    assert page.read_text().count("<img") >= 24
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
