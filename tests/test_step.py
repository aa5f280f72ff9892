"""The step: one gradient, whatever held the batch."""

from typing import Any

import pytest
import torch
from launch import ROOT, run, torchrun
from torch import nn
from workers.gradients import BATCH as SIZE
from workers.gradients import METHODS, gradients

from selfsup.step import still_statistics

GROUP = [name for name in METHODS if name.endswith("/group")]
BATCH = [name for name in METHODS if name.endswith("/batch")]
QUICK = ["simclr/group", "triplet memory/group", "proxies arcface/group"]


def difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Largest difference of any gradient or of the loss, absolute; gradients are of order 1."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Gradients of two processes with one and with two micro-batches each."""
    file = tmp_path_factory.mktemp("two") / "gradients.pt"
    done = run(*torchrun(2), ROOT / "tests" / "workers" / "gradients.py", file)
    assert done.returncode == 0, done.stderr
    made: dict[int, dict[str, Any]] = torch.load(file, weights_only=True)
    assert made[1]["world"] == made[2]["world"] == 2
    return made


@pytest.fixture(scope="module")
def one() -> dict[int, dict[str, Any]]:
    made = {count: gradients(count) for count in (1, 2, 4)}
    assert all(found["world"] == 1 for found in made.values())
    return made


@pytest.fixture(scope="module")
def quick() -> dict[int, dict[str, Any]]:
    return {count: gradients(count, [*QUICK, *BATCH]) for count in (1, 4)}


@pytest.mark.parametrize("case", QUICK)
def test_micro_batches_have_the_gradient_of_one_batch(
    quick: dict[int, dict[str, Any]], case: str
) -> None:
    assert difference(quick[1][case], quick[4][case]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("case", GROUP)
def test_four_micro_batches_have_the_gradient_of_one_batch(
    one: dict[int, dict[str, Any]], case: str
) -> None:
    assert difference(one[1][case], one[4][case]) < 1e-12


@pytest.mark.parametrize("case", BATCH)
def test_batch_statistics_are_of_the_micro_batch(
    quick: dict[int, dict[str, Any]], case: str
) -> None:
    assert difference(quick[1][case], quick[4][case]) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("case", METHODS)
def test_every_gradient_is_there_and_not_zero(one: dict[int, dict[str, Any]], case: str) -> None:
    assert max(float(g.abs().max()) for n, g in one[4][case].items() if n != "loss") > 1e-3


@pytest.mark.parametrize("case", [n for n in METHODS if "memory" in n or "info-nce" in n])
def test_a_step_puts_its_batch_into_the_memory(one: dict[int, dict[str, Any]], case: str) -> None:
    for found in one.values():
        added = [value for name, value in found[case].items() if name.endswith(".added")]
        assert [int(count) for count in added] == [SIZE]


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("case", GROUP)
def test_two_processes_have_the_gradient_of_one(
    one: dict[int, dict[str, Any]], two: dict[int, dict[str, Any]], case: str, micro_batches: int
) -> None:
    assert difference(one[1][case], two[micro_batches][case]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("case", METHODS)
def test_micro_batches_are_virtual_processes_also_with_batch_norm(
    one: dict[int, dict[str, Any]], two: dict[int, dict[str, Any]], case: str
) -> None:
    assert difference(one[2][case], two[1][case]) < 1e-12
    assert difference(one[4][case], two[2][case]) < 1e-12


def test_still_statistics_uses_the_batch_and_moves_nothing() -> None:
    norm = nn.BatchNorm1d(3)
    x = torch.randn(8, 3) + 5
    with still_statistics(norm):
        out = norm(x)
    assert torch.allclose(out.mean(0), torch.zeros(3), atol=1e-5)
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == torch.tensor(0)
    norm(x)
    assert norm.num_batches_tracked == torch.tensor(1)
