"""Pieces of tools/gpu_check.py that train: images a second, modes, kill and resume, CIFAR-10."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_views import photographs
from gpu_figures import DEVICE, Figure, Piece, at_least, at_most, cost, run_pieces

SIDE, BATCH = 256, 256  # pixels of stored images, images of a step
SGD = ["--solver", "sgd"]
SMALLER = {True: "test_resnet", False: "resnet18"}
KNN_AT_200 = 0.83
"""k-NN accuracy that 200 epochs of SimCLR should reach on CIFAR-10. Lightly publishes .848 for the
best of all epochs on the test set; this is the last one, k = 200."""


def data(folder: Path, n: int) -> dict[str, str]:
    """Write the same photographs as arrays, as JPEG files and as a pack, once."""
    from PIL import Image

    names = {"arrays": "photos.npz", "jpeg": "photos", "pack": "photos.pack"}
    paths = {kind: str(folder / name) for kind, name in names.items()}
    if Path(paths["pack"]).exists():
        return paths
    np.savez(paths["arrays"], images=photographs(n, SIDE, SIDE))
    jpegs = Path(paths["jpeg"])
    jpegs.mkdir(exist_ok=True)
    for i, image in enumerate(photographs(n, 375, 500)):
        Image.fromarray(image).save(jpegs / f"{i:05}.jpg", quality=90)
    command = [sys.executable, "-m", "selfsup", "pack", "--data", paths["jpeg"]]
    command += ["--out", paths["pack"], "--side", str(SIDE)]
    subprocess.run(command, check=True, cwd=folder)
    return paths


def train(folder: Path, precision: str = "bf16", **settings: Any) -> dict[str, float]:
    """Train in a process of its own; images a second, share of waiting, peak memory, last loss."""
    out = folder / "runs" / str(len(list((folder / "runs").glob("*"))))
    task = {"out": str(out), "method": "simclr", "report": False, "log_every": 5} | settings
    done = subprocess.run(
        [sys.executable, __file__, "--work", json.dumps(task)],
        env={**os.environ, "ACCELERATE_MIXED_PRECISION": precision},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=folder,
    )
    print(settings, precision, done.stdout[-2000:], flush=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(task: dict[str, Any]) -> None:
    """The process of `train`."""
    import selfsup

    run = selfsup.pretrain(task.pop("data"), **task)
    log = [line for line in run.log if "images_per_s" in line]
    steady = log[len(log) // 2 :]
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0
    figures = {
        "rate": statistics.median(line["images_per_s"] for line in steady),
        "waiting": statistics.median(line["waiting"] for line in steady),
        "memory": memory,
        "loss": log[-1]["loss"],
    }
    print(json.dumps(figures))


def shape(piece: Piece) -> dict[str, Any]:
    """Settings of all runs: a ResNet-50 at 224 pixels, or the smallest."""
    if piece.small:
        encoder = {"name": "test_resnet"}
        return {"encoder": encoder, "views": {"size": 32}, "batch": 8, "steps": 10}
    encoder = {"name": "resnet50", "stem": "standard"}
    return {"encoder": encoder, "views": {"size": 224}, "batch": BATCH, "steps": 40}


def bare(small: bool) -> float:
    """Images a second of a bare loop: two views that are there already, timm, NT-Xent, SGD."""
    import timm
    from lightly.loss import NTXentLoss

    batch, size, name = (8, 32, "test_resnet") if small else (BATCH, 224, "resnet50")
    network: Any = timm.create_model(name, num_classes=0)
    network = network.to(DEVICE, memory_format=torch.channels_last)
    head = torch.nn.Linear(network.num_features, 128).to(DEVICE)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer, loss = torch.optim.SGD(parameters, 0.1, momentum=0.9), NTXentLoss(0.1)
    x = torch.randint(0, 256, (2 * batch, 3, size, size), dtype=torch.uint8, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            z = head(network(x.float() / 255))
        loss(*z.float().chunk(2)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return batch / cost(step, 2 if small else 20).ms * 1e3


def throughput(piece: Piece) -> list[Figure]:
    """Images a second of SimCLR with bfloat16, beside a bare loop without any reading or views."""
    paths = data(piece.folder, 32 if piece.small else 2000)
    alone = bare(piece.small)
    figures = [Figure("bare loop", alone, "images/s")]
    rows = {
        "arrays, read by the process itself": ("arrays", 0, 1.0),
        "arrays, 8 workers": ("arrays", 8, 1.0),
        "JPEG 500 x 375, 2 workers": ("jpeg", 2, 0.4),
        "JPEG 500 x 375, 14 workers": ("jpeg", 14, 1.0),
        "pack of 256 px, 14 workers": ("pack", 14, 1.0),
    }
    best = 0.0
    for name, (kind, workers, share) in rows.items():
        settings = shape(piece)
        settings["steps"] = max(10, int(settings["steps"] * share))
        used = min(workers, 1) if piece.small else workers
        found = train(piece.folder, data=paths[kind], workers=used, **settings)
        unit = f"images/s, waits {found['waiting']:.0%}, {found['memory']:.1f} GiB"
        figures.append(Figure(name, found["rate"], unit))
        best = max(best, found["rate"])
    return [*figures, at_least("best / bare loop", best / alone, 0.8)]


def modes(piece: Piece) -> list[Figure]:
    """Images a second in other precisions and forms."""
    paths = data(piece.folder, 32 if piece.small else 2000)
    base = shape(piece) | {"workers": 0 if piece.small else 8, "data": paths["arrays"]}
    encoder, half = base["encoder"], base["batch"] // 2
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        "float32": ("no", {"steps": base["steps"] // 2}),
        "fp16": ("fp16" if DEVICE.type == "cuda" else "bf16", {}),
        "two micro-batches": ("bf16", {"micro_batch": half}),
        "channels_last off": ("bf16", {"encoder": encoder | {"channels_last": False}}),
        "activations computed again": ("bf16", {"checkpoint_activations": True}),
    }
    if not piece.small:
        rows["compile"] = ("bf16", {"encoder": encoder | {"compile": True}})
    figures = []
    for name, (precision, changed) in rows.items():
        found = train(piece.folder, precision, **(base | changed))
        finite = bool(np.isfinite(found["loss"]))
        unit = f"images/s, {found['memory']:.1f} GiB, loss {found['loss']:.3f}"
        figures.append(Figure(name, found["rate"], unit, passed=finite))
    return figures


def resume(piece: Piece) -> list[Figure]:
    """Losses of the steps after a checkpoint, gone on from, beside those of the run that wrote it.

    Kernels of a GPU add in no fixed order, so that two runs of one seed part within some steps; the
    first three after the checkpoint are compared.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (512, 8, 8, 3), dtype=np.uint8)
    source, whole = piece.folder / "noise.npz", piece.folder / "resume-whole"
    np.savez(source, images=pixels.repeat(4, 1).repeat(4, 2))
    command = [sys.executable, "-m", "selfsup", "pretrain", "--method", "simclr"]
    command += ["--data", str(source), "--encoder.name", SMALLER[piece.small]]
    command += ["--batch", "16" if piece.small else "128", "--steps", "20", "--save-every", "10"]
    command += ["--log-every", "1", "--no-report", "--out"]
    subprocess.run([*command, str(whole)], check=True, cwd=piece.folder)
    again = piece.folder / "resume-again"
    shutil.copytree(whole, again, ignore=shutil.ignore_patterns("step-00000020", "encoder"))
    subprocess.run([*command, str(again)], check=True, cwd=piece.folder)
    losses = []
    for folder in (whole, again):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        losses.append({line["step"]: line["loss"] for line in lines if "loss" in line})
    apart = [abs(losses[1][step] / losses[0][step] - 1) for step in (11, 12, 13)]
    return [at_most("largest relative difference of a loss", max(apart), 1e-3)]


def cifar(piece: Piece) -> list[Figure]:
    """SimCLR on CIFAR-10, ResNet-18 with the small stem, 200 epochs of 512 in bfloat16.

    Lightly's published protocol. The run goes on from its checkpoint.
    """
    images, out = Path(piece.rest[0]), piece.folder / "cifar10"
    began = time.monotonic()
    command = [sys.executable, "-m", "selfsup", "pretrain", "--method", "simclr"]
    command += ["--data", str(images / "train.npz"), "--out", str(out), "--batch", "512"]
    command += ["--views.strength", "0.5", "--views.blur", "0", "--views.size", "32"]
    command += ["--method.temperature", "0.5", "--log-every", "50", "--no-report"]
    command += ["--encoder.name", "test_resnet", "--steps", "20"] if piece.small else []
    command += [] if piece.small else ["--encoder.name", "resnet18", "--epochs", "200"]
    command += ["--workers", "0" if piece.small else "4"]
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": "bf16"}
    subprocess.run(command, check=True, cwd=piece.folder, env=environment)
    minutes = (time.monotonic() - began) / 60
    figures = [Figure("minutes of this command's training", minutes)]
    for tool, more in (("knn", ["--k", "20" if piece.small else "200"]), ("linear", SGD)):
        result = piece.folder / f"cifar10-{tool}.json"
        command = [sys.executable, "-m", "selfsup", tool, "--model", str(out), *more]
        command += ["--data", str(images / "train.npz"), "--test", str(images / "test.npz")]
        command += ["--baselines", "random", "--no-leaks", "--out", str(result)]
        subprocess.run(command, check=True, cwd=piece.folder)
        (found,) = json.loads(result.read_text())["figures"].values()
        unit = f"[{found['low']:.3f}, {found['high']:.3f}]"
        figures.append(Figure(f"{tool}, accuracy", found["value"], unit))
    if not piece.small:
        figures[1] = at_least(*figures[1][:2], KNN_AT_200, figures[1].unit)  # type: ignore[arg-type]
    return figures


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(json.loads(sys.argv[2]))
    else:
        run_pieces({"throughput": throughput, "modes": modes, "resume": resume, "cifar": cifar})
