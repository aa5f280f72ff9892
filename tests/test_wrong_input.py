"""What recipes and tools say to wrong input: one sentence, and exit status 2."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import FINETUNE, PRETRAIN, ROOT, called, recipe, run
from pictures import folder, picture

pytestmark = pytest.mark.slow


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
    (root / "gone.csv").write_text("path\nnever/1.png\nnever/2.png\n")
    (root / "typo.yaml").write_text("seed: 1\noptim:\n  learning: 0.1\n")
    (root / "mistyped.yaml").write_text("seed: 1\n\nbatch: many\n")


PRE, FINE = "recipes/pretrain_simclr.py", "recipes/finetune_triplet.py"
PAIRS = "recipes/finetune_pairs.py"
RIGHT = ("--method.loss", "angular", "--method.n-pairs.degrees", "90")
SUPCON = ("--method.loss", "supcon", "--method.miner", "multi-similarity")
WRONG = {
    "missing folder": (PRE, ["--data", "imagse", *PRETRAIN], "imagse does not exist (did you mean"),
    "no images": (PRE, ["--data", "empty", *PRETRAIN], "empty holds no images"),
    "no image of a manifest": (
        PRE,
        ["--data", "gone.csv", *PRETRAIN, "--views.size", "0"],
        "no image of a sample can be read; the first, never/1.png: FileNotFoundError: No such file "
        "or directory. `selfsup audit --data gone.csv` lists why",
    ),
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
        ["--data", "images", *PRETRAIN, "--init", "evil.pth"],
        "evil.pth is a pickle with more than tensors in it",
    ),
    "other weights": (
        PRE,
        ["--data", "images", *PRETRAIN, "--init", "other.pth"],
        "the tensors of other.pth do not say which network they are of",
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
        "DINO predicts one view from another; --views.views is 1",
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
    "a loss given twice": (
        "tools/finetune.py",
        ["--data", "images", "--loss", "arcface", "--method.loss", "cosface"],
        "--loss is --method.loss: give one",
    ),
    "a miner of no use": (
        "tools/finetune.py",
        ["--data", "images", "--loss", "arcface", "--miner", "batch-hard"],
        "--miner has no effect with --loss arcface",
    ),
    "no such pipeline": (
        "tools/pretrain.py",
        ["--data", "images", "--pipeline", "factori"],
        "there is no pipeline 'factori' (did you mean 'factory'?)",
    ),
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


def test_an_unknown_flag_is_told_with_a_guess(wrong: Path) -> None:
    done = called(PRE, "--data", wrong / "images", "--out", wrong / "x", "--optim.lrr", "1")
    assert done.returncode == 2
    assert "--optim.lr" in done.stderr + done.stdout
