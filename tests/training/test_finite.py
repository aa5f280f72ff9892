"""A loss or a gradient that is not finite stops a run before anything is changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from workers.calls import SMALL

import selfsup
from recipes.pretrain_simclr import Config
from selfsup.core.errors import DivergedError, UserError
from selfsup.doctor.cases import CASES
from selfsup.doctor.certificate import prepare
from selfsup.encoders.weights import read_file
from selfsup.training.pretrain import export
from selfsup.training.run import Run


class Breaks(torch.autograd.Function):
    """The same number, with a gradient of nan."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


@pytest.mark.parametrize("case", ["simclr", "triplet", "byol", "proxies"])
@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("loss", "the loss is nan at step 2"),
        ("infinite", "the loss is inf at step 2"),
        ("gradient", "the gradient is not finite at step 2"),
    ],
)
def test_a_step_that_is_not_finite_moves_no_weight(
    case: str, broken: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, batches = prepare(CASES[case])
    step(batches[0])
    before = {name: p.clone() for name, p in step.method.named_parameters()}
    loss = step.method.loss

    def wrong(*given: object) -> Tensor:
        value = loss(*given)  # type: ignore[arg-type]
        if broken == "gradient":
            return Breaks.apply(value)  # type: ignore[no-any-return]
        return value * (torch.nan if broken == "loss" else torch.inf)

    monkeypatch.setattr(step.method, "loss", wrong)
    with pytest.raises(UserError, match=sentence):
        step(batches[1])
    for name, p in step.method.named_parameters():
        assert torch.equal(p, before[name]), name


def test_checkpoints_are_whole_although_the_log_looks_seldom(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 20, 20, 3), dtype=np.uint8)
    often = {"log_every": 1000, "save_every": 1, "steps": 12, "keep": 2}
    settings = SMALL | often | {"optim": {"name": "sgd", "lr": 1e25, "warmup": 0.0}}
    with pytest.raises(UserError, match="weights and checkpoints are those of the steps before"):
        selfsup.pretrain(images, out=tmp_path / "run", batch=8, **settings)
    files = list((tmp_path / "run").glob("checkpoints/step-*/model.safetensors"))
    assert len(files) < 12
    for file in files:
        for name, value in read_file(file).items():
            assert value.isfinite().all(), name


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_an_encoder_that_is_not_finite_is_not_exported(broken: float, tmp_path: Path) -> None:
    run = Run(Config(data="x", out=str(tmp_path)))
    step, _ = prepare(CASES["simclr"])
    with torch.no_grad():
        next(step.method.encoder.parameters())[0] = broken
    with pytest.raises(DivergedError, match="no encoder was written"):
        export(run, step.method, Config.views)
    assert not (tmp_path / "encoder").exists()
