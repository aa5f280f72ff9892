"""What published weights know is there until new layers have learnt to use it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import SMALL
from safetensors.torch import load_file
from torch import nn

import selfsup
from selfsup.config import EncoderConfig, OptimConfig, ViewsConfig
from selfsup.encoders.encoder import build_for, export, load
from selfsup.training.optim import optimizer, schedule

VIEWS = ViewsConfig(size=16)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    encoder = EncoderConfig(name="resnet18", args=SMALL, stem="standard")
    export(build_for(encoder, VIEWS), tmp_path / "published", VIEWS)
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=draw.integers(0, 256, (32, 16, 16, 3), dtype=np.uint8))
    return tmp_path


def encoder_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    tensors = load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    return {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}


@pytest.mark.parametrize("micro_batch", [None, 8])
@pytest.mark.parametrize("method", ["simclr", "byol", "dino"])
def test_an_encoder_of_init_is_untouched_until_the_warm_up_ends(
    start: Path, method: str, micro_batch: int | None
) -> None:
    small: dict[str, Any] = {"hidden": 16, "dim": 8}
    if method == "dino":
        small["prototypes"] = 12
    settings: dict[str, Any] = {"workers": 0, "report": False, "save_every": 4, "keep": 5}
    run = selfsup.pretrain(
        start / "x.npz",
        out=start / method,
        init=start / "published",
        method={"name": method, **small},
        batch=16,
        micro_batch=micro_batch,
        steps=12,
        optim={"warmup": 1 / 3},
        **settings,
    )
    assert run.settings["optim"]["settle"] == pytest.approx(1 / 3)
    published = load(start / "published")[0].state_dict()
    waiting, moved = (encoder_of(run.folder, step) for step in (4, 12))
    for name, tensor in published.items():
        assert torch.equal(waiting[name], tensor), name
    weights = [name for name, x in published.items() if x.is_floating_point() and x.ndim > 1]
    assert all(not torch.equal(moved[name], published[name]) for name in weights)
    checkpoints = run.folder / "checkpoints"
    heads = [load_file(checkpoints / f"step-{step:08d}" / "model.safetensors") for step in (4, 12)]
    new = [name for name in heads[0] if not name.startswith(("encoder.", "teacher"))]
    assert any(not torch.equal(heads[0][name], heads[1][name]) for name in new)


def test_random_weights_and_a_given_zero_learn_from_the_first_step(start: Path) -> None:
    settings: dict[str, Any] = {"workers": 0, "report": False, "save_every": 1, "steps": 1}
    for init, settle in (("", None), (start / "published", 0.0)):
        out = start / f"run{settle}"
        run = selfsup.pretrain(
            start / "x.npz",
            out=out,
            init=init,
            batch=16,
            method={"name": "simclr", "hidden": 16, "dim": 8},
            optim={"settle": settle, "warmup": 0.0},
            **settings | ({} if init else {"encoder": {"name": "resnet18", "args": SMALL}}),
        )
        assert run.settings["optim"]["settle"] == settle
        if init:
            moved = encoder_of(run.folder, 1)
            published = load(start / "published")[0].state_dict()
            assert any(not torch.equal(moved[name], x) for name, x in published.items())


def test_the_rate_of_what_waits_rises_after_the_wait_over_as_many_steps() -> None:
    encoder, head = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    config = OptimConfig(lr=1.0, rule="none", warmup=0.0, settle=0.2)
    both = nn.ModuleList([encoder, head])
    made = optimizer(both, config, settled={id(p) for p in encoder.parameters()})
    late = []
    for step in range(10):
        own = schedule(made, config, batch=1, step=step, total=10)
        rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
        assert rates[id(head.weight)] == own
        late.append(rates[id(encoder.weight)] / own)
    assert late == [0.0, 0.0, 0.5, *[1.0] * 7]
