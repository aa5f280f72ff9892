"""The step: one gradient and one state, whatever held the batches."""

from typing import Any

import pytest
import torch
from launch import ROOT, run, torchrun
from torch import nn
from workers.gradients import METHODS, STEPS, gradients

from selfsup.doctor.cases import QUEUE
from selfsup.doctor.certificate import BATCH as SIZE
from selfsup.doctor.certificate import Measurement
from selfsup.training.step import frozen_running_stats

GROUP = [name for name in METHODS if name.endswith(("/group", "/vit"))]
BATCH = [name for name in METHODS if name.endswith("/batch")]
QUICK = ["dino/group", "dinov2/vit", "proxies arcface/group", "byol own/batch"]
MEMORIES = [
    *("moco-v2/group", "nnclr/group", "swav/group", "triplet/group", "pairs circle/group"),
    "triplet+distil/group",
]
ONCE = {*QUICK, *MEMORIES, "simclr/group"}
"""One of each kind: a teacher, batch norms, parameters of the loss, memories, none of these."""


def cases(names: list[str]) -> list[Any]:
    """Those of `ONCE`, and the others in the grid."""
    return [name if name in ONCE else pytest.param(name, marks=pytest.mark.grid) for name in names]


STATISTICS = ("running_", "num_batches_")
Runs = dict[int, dict[str, Measurement]]


def difference(a: Measurement, b: Measurement) -> float:
    """Largest difference of any gradient, weight or buffer, over the largest gradient or 1."""
    pairs = [(a.gradients, b.gradients), (a.state, b.state)]
    assert all(x.keys() == y.keys() for x, y in pairs)
    apart = [float((x[name] - y[name]).abs().max()) for x, y in pairs for name in x]
    scale = max(float(g.abs().max()) for g in b.gradients.values())
    return max(*apart, abs(a.loss - b.loss)) / max(1.0, scale)


@pytest.fixture(scope="module")
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What two processes do with one and with two micro-batches each."""
    file = tmp_path_factory.mktemp("two") / "gradients.pt"
    script = ROOT / "tests" / "workers" / "gradients.py"
    done = run(*torchrun(2), script, file, *chosen(request))
    assert done.returncode == 0, done.stderr
    made: dict[Any, Any] = torch.load(file, weights_only=True)
    assert made.pop("world") == 2
    return {
        c: {name: Measurement(*each) for name, each in found.items()} for c, found in made.items()
    }


@pytest.fixture(scope="module")
def one(request: pytest.FixtureRequest) -> Runs:
    return {count: gradients(count, chosen(request)) for count in (1, 2, 4)}


def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The cases that this run of the tests looks at."""
    return [name for name in METHODS if name in ONCE or request.config.getoption("--all")]


@pytest.fixture(scope="module")
def quick() -> Runs:
    return {count: gradients(count, QUICK) for count in (1, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("case", QUICK)
def test_micro_batches_are_one_batch_but_for_batch_statistics(quick: Runs, case: str) -> None:
    apart = difference(quick[1][case], quick[4][case])
    assert apart > 1e-6 if case in BATCH else apart < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(GROUP))
def test_four_micro_batches_are_one_batch(one: Runs, case: str) -> None:
    assert difference(one[1][case], one[4][case]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(BATCH))
def test_batch_statistics_are_of_the_micro_batch(one: Runs, case: str) -> None:
    assert difference(one[1][case], one[4][case]) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(list(METHODS)))
def test_every_trained_parameter_has_a_gradient_and_they_are_not_zero(one: Runs, case: str) -> None:
    found = one[4][case]
    trained = {name for name in found.state if name in found.gradients}
    kept = ("teacher", "queue", "memory", "centre", "ranking.memory")
    fixed = {n for n in found.state if n.startswith(kept)}
    rest = found.state.keys() - still(found).state.keys()
    assert trained | fixed | rest | {"second_moment"} == found.state.keys() | {"second_moment"}
    assert not trained & fixed
    assert all(g.isfinite().all() for g in found.gradients.values())
    assert max(float(g.abs().max()) for g in found.gradients.values()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", MEMORIES)
def test_each_step_puts_its_batch_into_the_memory(one: Runs, case: str) -> None:
    for found in one.values():
        state = found[case].state
        (added,) = (value for name, value in state.items() if name.endswith(".added"))
        (rows,) = (value for name, value in state.items() if name.endswith(".rows"))
        assert int(added) == STEPS * SIZE
        assert len(rows) == QUEUE
        assert (rows.abs().sum(1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("case", cases(GROUP))
def test_two_processes_are_one(one: Runs, two: Runs, case: str, micro_batches: int) -> None:
    assert difference(one[1][case], two[micro_batches][case]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(list(METHODS)))
def test_micro_batches_are_virtual_processes_also_with_batch_norm(
    one: Runs, two: Runs, case: str
) -> None:
    """But for the running statistics, which are each process's own until the next forward pass."""
    for virtual, real in ((one[2][case], two[1][case]), (one[4][case], two[2][case])):
        assert difference(still(virtual), still(real)) < 1e-12


def still(found: Measurement) -> Measurement:
    kept = {n: x for n, x in found.state.items() if not n.split(".")[-1].startswith(STATISTICS)}
    return found._replace(state=kept)


def test_still_statistics_uses_the_batch_and_moves_nothing() -> None:
    norm = nn.BatchNorm1d(3)
    x = torch.randn(8, 3) + 5
    with frozen_running_stats(norm):
        out = norm(x)
    assert torch.allclose(out.mean(0), torch.zeros(3), atol=1e-5)
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == torch.tensor(0)
    norm(x)
    assert norm.num_batches_tracked == torch.tensor(1)
