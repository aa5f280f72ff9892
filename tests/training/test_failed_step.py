"""A step that fails says on which images, and what would fit."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import ROOT, called, run
from pictures import folder
from torch import Tensor
from workers.calls import SMALL

import selfsup
from selfsup.core.cli import attempt
from selfsup.core.errors import DivergedError, NoRoomError
from selfsup.core.memory import is_out_of_memory
from selfsup.methods.simclr import SimCLR
from selfsup.methods.triplet_ranking import Triplet
from selfsup.training.step import Stepper

Loss = Callable[..., Tensor]


def breaks_at(step: int, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Loss = method.loss

    def loss(self: Any, embeddings: Any, labels: Any, info: Any) -> Tensor:
        return real(self, embeddings, labels, info) * (torch.nan if info.step == step else 1)

    monkeypatch.setattr(method, "loss", loss)


def replayed(sentence: str, where: Path) -> str:
    """The page that the command in a sentence makes."""
    words = shlex.split(sentence.split("`")[1])
    assert words[:2] == ["selfsup", "views"]
    done = called("tools/views.py", *words[2:], "--page", where)
    assert done.returncode == 0, done.stderr
    return where.read_text()


def test_a_step_that_is_not_finite_names_its_images_and_replays_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(tmp_path / "images")
    breaks_at(2, SimCLR, monkeypatch)
    with pytest.raises(DivergedError, match="the loss is nan at step 3") as caught:
        selfsup.pretrain(images, out=tmp_path / "run", batch=8, **(SMALL | {"save_every": 1}))
    kept = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    assert (kept["step"], kept["seed"], kept["checkpoints"]) == (2, 0, [1, 2])
    assert kept["images_in_all"] == len({image["position"] for image in kept["images"]}) == 8
    assert kept["gradients_not_finite"]
    page = replayed(str(caught.value), tmp_path / "page.html")
    for image in kept["images"]:
        assert image["name"] in page


def test_a_fine_tuning_replays_its_step_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(tmp_path / "images")
    breaks_at(1, Triplet, monkeypatch)
    small = SMALL | {"classes": 3, "images": 2, "method": {"dim": 8}}
    with pytest.raises(DivergedError) as caught:
        selfsup.finetune(images, out=tmp_path / "run", loss="triplet", **small)
    kept = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    page = replayed(str(caught.value), tmp_path / "page.html")
    assert len(kept["images"]) == 6
    for image in kept["images"]:
        assert image["name"] in page


def test_images_whose_embeddings_are_not_finite_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SimCLR.embed

    def embed(self: SimCLR, views: Any) -> Any:
        z = real(self, views)
        bad = torch.zeros(len(z.first), 1)
        bad[5] = torch.inf
        return type(z)(z.first + bad, z.second)

    monkeypatch.setattr(SimCLR, "embed", embed)
    images = np.random.default_rng(0).integers(0, 256, (32, 20, 20, 3), dtype=np.uint8)
    with pytest.raises(DivergedError, match=r"failed_step.json has the images of the step"):
        selfsup.pretrain(images, out=tmp_path / "run", batch=8, **SMALL)
    kept = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    assert [image["row"] for image in kept["images"]] == [5, 0, 1, 2, 3, 4, 6, 7]
    assert [image["embedding_is_finite"] for image in kept["images"]] == [False] + 7 * [True]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(2, "No such file"), False),
        (ValueError("out of memory is what this is not"), False),
    ],
)
def test_full_memory_is_known_and_ends_a_command_with_5(error: Exception, full: bool) -> None:
    assert is_out_of_memory(error) == full

    def work() -> None:
        raise error

    if full:
        assert attempt(work) == 5
    else:
        with pytest.raises(type(error)):
            attempt(work)


@pytest.mark.parametrize(
    ("fitting", "named"), [(4, "--micro-batch 4"), (3, "--micro-batch 2"), (1, "")]
)
def test_the_largest_micro_batch_that_fits_is_named(
    fitting: int, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Stepper.inputs

    def inputs(self: Stepper, batch: Any, chunk: slice) -> tuple[Tensor, ...]:
        x = real(self, batch, chunk)
        if batch.step == 2 and len(x[0]) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    monkeypatch.setattr(Stepper, "inputs", inputs)
    images = np.random.default_rng(0).integers(0, 256, (32, 20, 20, 3), dtype=np.uint8)
    out, small = tmp_path / "run", SMALL | {"save_every": 1}
    with pytest.raises(NoRoomError, match="out of memory at step 3, with 8 images") as caught:
        selfsup.pretrain(images, out=out, batch=8, **small)
    assert "the newest checkpoint is of step 2" in str(caught.value)
    assert named in str(caught.value)
    if named:  # and it goes on with that
        size = int(named.split()[1])
        selfsup.pretrain(images, out=out, batch=8, micro_batch=size, **small)
    else:
        assert "Nor do 2 fit: take a smaller encoder" in str(caught.value)


LIMITED = """
import resource, sys
from pathlib import Path
import torch
import selfsup.training.loop as loop
real = loop.Stepper.__call__
def limited(self, batch):
    if batch.step == 1:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (600 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return real(self, batch)
loop.Stepper.__call__ = limited
sys.argv = ["pretrain_simclr.py", *sys.argv[1:]]
from recipes.pretrain_simclr import command
command()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
def test_a_real_limit_on_memory_ends_a_run_with_5_and_the_micro_batch_that_it_names_fits(
    tmp_path: Path,
) -> None:
    script, out = tmp_path / "limited.py", tmp_path / "run"
    script.write_text(LIMITED)
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images)
    small = "{stem_type: deep, stem_width: 32, channels: [64, 64, 8, 8], layers: [1, 1, 1, 1]}"
    flags: list[str | Path] = ["--data", tmp_path / "data.npz", "--out", out]
    flags += ["--encoder.name", "resnet18"]
    flags += ["--encoder.args", small, "--views.size", "64", "--batch", "64", "--steps", "2"]
    flags += ["--save-every", "1", "--no-report", "--workers", "0"]
    done = run(sys.executable, script, *flags, cwd=ROOT)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (
        "out of memory at step 2, with 64 images at a time; the newest checkpoint is of step 1"
        in done.stderr
    )
    size = done.stderr.split("--micro-batch ")[1].split(",")[0]
    assert json.loads((out / "status.json").read_text())["exit_status"] == 5
    done = run(sys.executable, script, *flags, "--micro-batch", size, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
