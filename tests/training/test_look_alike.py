"""Steps on a device that looks like a GPU: what they compute, how often they wait and launch.

The table `tests/golden/launches_and_waits.txt` has both numbers of the second step of each case, 16
images each. They may only go down. After they did,

    PYTHONPATH=.:tests python tests/training/test_look_alike.py

writes the table again; it leaves a row as it is whose numbers have gone up.
"""

import unittest.mock
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from look_alike import DEVICE, Accelerator, Counts, OnDevice, look_alike
from small import normal
from torch import Tensor, nn
from workers.gradients import METHODS, NORMS

from selfsup import catalog, losses, mining
from selfsup.config import OptimConfig
from selfsup.core import compiled, distributed, numerics
from selfsup.core.errors import DivergedError
from selfsup.core.transfers import Arriving, send
from selfsup.doctor import certificate
from selfsup.doctor.certificate import FIRST
from selfsup.methods.memory import Memory
from selfsup.training.optim import clipping, optimizer

TABLE = Path(__file__).parents[1] / "golden" / "launches_and_waits.txt"
VERSION = ".".join(torch.__version__.split(".")[:2])
STEPS = 2
QUICK = ["simclr/group", "dino/group", "triplet/group", "pairs circle/group", "proxies/group"]
ALIKE = ("proxies+distil/group", "pairs+distil/group", "dinov2 shared/vit")
"""Cases that launch what others do."""
ROWS = [name for name in METHODS if not name.endswith("/batch") and name not in ALIKE]
CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]


class Cost(NamedTuple):
    """Of one step."""

    launches: int
    waits: int


class Steps(NamedTuple):
    """Losses and lengths of the embeddings of some steps, and what follows them."""

    values: list[float]
    gradient: list[float]
    """Lengths of the gradient of each parameter, at the step after."""
    cost: Cost
    waits: Counter[str]


def steps(name: str, counts: Counts) -> Steps:
    """Take steps of a case, and compute what the log shows of the last one, and one gradient."""
    step, batches = certificate.prepare(METHODS[name], NORMS[name.split("/")[1]])
    results = []
    for i in range(FIRST, FIRST + STEPS):
        batch = batches[i]
        counts.clear()
        loss = step(batch)
        step.method.after_step(step.embeddings, step.labels, step.info(batch))
        waits = Counter(counts.waits)
        cost = Cost(counts.launches, waits.total())
        results += [loss, step.embeddings[0].norm()]
    step.method.signs(step.embeddings, step.labels, step.info(batch))
    step.gradient(batches[FIRST + STEPS])
    gradients = [p.grad for p in step.method.parameters() if p.grad is not None]
    lengths = [x.norm().item() for x in gradients]
    return Steps([x.item() for x in results], lengths, cost, waits)


def steps_on_the_device(name: str, *, float64: bool = True) -> Steps:
    start = unittest.mock.patch.object(distributed, "start", Accelerator)
    without = set() if float64 else {DEVICE.type}
    known = unittest.mock.patch.object(numerics, "WITHOUT_FLOAT64", without)
    with look_alike(float64=float64) as counts, start, known:
        return steps(name, counts)


def table() -> dict[str, Cost]:
    """The rows of the table."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = (line.rsplit(None, 2) for line in lines if not line.startswith("#"))
    return {name: Cost(int(launches), int(waits)) for name, launches, waits in rows}


def write() -> None:
    """Write the table, with a row for each case."""
    old = table()
    lines = [f"# torch {VERSION}; a step of 16 images: case, launches, waits"]
    for name in ROWS:
        cost = steps_on_the_device(name).cost
        lowest = Cost(*map(min, cost, old.get(name, cost)))
        lines.append(f"{name:<32}{lowest.launches:>6}{lowest.waits:>4}")
    TABLE.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_a_step_on_the_device_is_that_of_the_cpu_at_no_more_than_its_row_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "available", lambda: False)  # no device has the compiled loops
    there, here = steps_on_the_device(name), steps(name, Counts())
    assert there.values == pytest.approx(here.values, rel=1e-6)
    rounding = 1e-5 * max(here.gradient)
    assert there.gradient == pytest.approx(here.gradient, rel=1e-4, abs=rounding)
    row = table()[name]
    places = "\n".join(f"  {n} x {place}" for place, n in sorted(there.waits.items()))
    assert there.cost.waits <= row.waits, f"{row.waits} waits in {TABLE}; now:\n{places}"
    if TABLE.read_text().startswith(f"# torch {VERSION};"):  # others split operations differently
        assert there.cost.launches <= row.launches


@pytest.mark.parametrize("name", CASES)
def test_a_step_on_a_device_without_float64_is_that_of_the_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "available", lambda: False)
    there, here = steps_on_the_device(name, float64=False), steps(name, Counts())
    assert there.values == pytest.approx(here.values, rel=1e-6)
    rounding = 1e-5 * max(here.gradient)
    assert there.gradient == pytest.approx(here.gradient, rel=1e-4, abs=rounding)


@pytest.mark.parametrize("clip", [{}, {"clip": 1.0}, {"clip_each": 1.0}])
@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_no_optimiser_waits_or_launches_more_for_more_weights(
    name: Literal["sgd", "adamw", "lars"], clip: dict[str, float]
) -> None:
    config = OptimConfig(name=name, **clip)  # type: ignore[arg-type]
    launches = []
    with look_alike() as counts:
        for layers in (2, 20):
            network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers))).to(DEVICE)
            optim = Accelerator().prepare(optimizer(network, config))
            shorten = clipping(config)
            for _ in range(2):
                network(torch.ones(2, 4, device=DEVICE)).sum().backward()
                counts.clear()
                if shorten is not None:
                    shorten(list(network.parameters()))
                optim.step()
                optim.zero_grad()
            assert not counts.waits
            launches.append(counts.launches)
    # torch's own clipping takes all gradients at once on the devices that it knows
    assert launches[0] == launches[1] or "clip" in clip


@pytest.mark.parametrize("case", ["simclr/group", "supcon/group", "proxies/group"])
def test_what_is_not_finite_on_the_device_stops_the_step_after(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = unittest.mock.patch.object(distributed, "start", Accelerator)
    with look_alike(), start:
        step, batches = certificate.prepare(METHODS[case], NORMS[case.split("/")[1]])
        step(batches[2])
        real = step.method.loss
        monkeypatch.setattr(step.method, "loss", lambda *known: real(*known) * torch.nan)
        step(batches[3])
        embeddings = step.embeddings
        with pytest.raises(DivergedError, match="the loss is nan at step 4"):
            step.require_finite()  # as before a checkpoint or a report
        monkeypatch.setattr(step.method, "loss", real)
        with pytest.raises(DivergedError, match="the loss is nan at step 4"):
            step(batches[4])
        assert step.check is not None
        assert step.check.step == 3
        assert step.check.embeddings is embeddings
        assert step.check.broken_gradients()


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("loss", ["supcon", "circle", "angular", "n-pairs", "arcface", "triplets"])
def test_labels_may_lie_on_the_host_or_on_the_device(loss: str, where: str) -> None:
    x, labels = normal(8, 4).float(), torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])

    def compute(x: Tensor, labels: Tensor) -> Tensor:
        match loss:
            case "supcon":
                return losses.supcon(x, labels, temperature=0.1)
            case "circle":
                pairs = mining.multi_similarity_pairs(x, labels, epsilon=0.5)
                return losses.circle(x, labels, margin=0.4, gamma=10, pairs=pairs)
            case "angular":
                return losses.angular(x, labels, degrees=40)
            case "n-pairs":
                return losses.n_pairs(x, labels, normalize=True, temperature=0.1, regularizer=0)
            case "arcface":
                return losses.arcface(x, labels, x[:4], margin=0.5, scale=8)
            case _:
                triplets = mining.batch_hard(x, labels, distance=losses.Distance())
                return losses.triplet_soft(x, triplets, distance=losses.Distance())

    expected = compute(x, labels).item()
    with look_alike():
        on_device = x.to(DEVICE)
        value = compute(on_device, labels.to(DEVICE) if where == "device" else labels)
        assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("semi_hard", [True, False])
@pytest.mark.parametrize("float64", [True, False])
def test_triplets_of_large_classes_are_summed_on_any_device(
    float64: bool, semi_hard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = normal(40, 4).float(), torch.arange(40) % 2  # 19 positives of each anchor
    settings: dict[str, Any] = {"margin": 0.3, "semi_hard": semi_hard, "active_only": True}

    def compute(x: Tensor) -> tuple[float, float, int]:
        x = x.detach().requires_grad_()
        loss, active = losses.triplet_windows(x, labels, distance=losses.Distance(), **settings)
        (gradient,) = torch.autograd.grad(loss, x)
        return loss.item(), gradient.norm().item(), int(active)

    expected = compute(x)
    monkeypatch.setattr(numerics, "WITHOUT_FLOAT64", set() if float64 else {DEVICE.type})
    with look_alike(float64=float64):
        assert compute(x.to(DEVICE)) == pytest.approx(expected, rel=1e-5)


def test_a_low_temperature_needs_no_float64_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(6, 4).float(), normal(6, 4, seed=1).float()
    expected = losses.nt_xent(a, b, temperature=0.01)
    monkeypatch.setattr(numerics, "WITHOUT_FLOAT64", {DEVICE.type})
    with look_alike(float64=False):
        x = a.to(DEVICE).requires_grad_()
        loss = losses.nt_xent(x, b.to(DEVICE), temperature=0.01)
        loss.backward()
        assert loss.device == DEVICE
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert x.grad is not None
        assert x.grad.device == DEVICE


def test_a_memory_moves_its_rows_and_keeps_what_decides_on_the_host() -> None:
    with look_alike() as counts:
        memory = Memory(3, 2).to(DEVICE)
        assert memory.rows.device == DEVICE
        rows = torch.arange(8.0).view(4, 2).to(DEVICE)
        counts.clear()
        memory.add(rows, torch.tensor([4, 5, 6, 7]))
        embeddings, labels = memory.append_to(rows[:1], torch.tensor([9]))
        assert not counts.waits
        assert labels.tolist() == [9, 7, 5, 6]
        assert embeddings.tolist() == [[0, 1], [6, 7], [2, 3], [4, 5]]
    assert list(memory.state_dict()) == ["rows", "labels", "added"]
    assert memory.double().added.dtype == torch.int64


def test_every_method_and_every_ranking_loss_has_a_row() -> None:
    rows = {name.split("/")[0] for name in table()}
    assert set(catalog.methods()) <= rows
    for loss in catalog.losses():
        recipe, settings = catalog.finetuning_recipe(loss)
        family = recipe.Config.method.name
        chosen = settings.get("loss", "")
        default = type(recipe.Config.method)().loss
        assert family in rows if chosen == default else f"{family} {chosen}" in rows, loss


def test_the_device_refuses_what_cuda_refuses() -> None:
    with look_alike():
        x = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="cpu and device together"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="indices of the device"):
            torch.ones(3)[x.long()]
        with pytest.raises(RuntimeError, match="generator of the CPU"):
            torch.rand(3, device=DEVICE, generator=torch.Generator())
        assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a single number may be anywhere
        assert x.double().dtype == torch.float64
    with look_alike(float64=False), pytest.raises(TypeError, match="float32 instead"):
        torch.ones(3).to(DEVICE).double()


def test_the_host_waits_for_numbers_and_for_shapes_that_follow_from_numbers() -> None:
    with look_alike() as counts:
        x = torch.ones(3).to(DEVICE)
        mask = x > 0
        waits: dict[str, Callable[[], object]] = {
            "number": lambda: float(x.sum()),
            "list of numbers": x.tolist,
            "nonzero": mask.nonzero,
            "rows of a mask": lambda: x[mask],
            "copy to the host": x.cpu,
            "copy to the device": lambda: torch.tensor([1.0]).to(DEVICE, non_blocking=True),
            "index from the host": lambda: x[torch.tensor([0])],
        }
        for reason, wait in waits.items():
            counts.clear()
            wait()
            assert counts.waits == {f"{reason} at outside of the package": 1}


def test_nothing_else_waits() -> None:
    with look_alike() as counts:
        x = send(torch.ones(3), DEVICE)
        x[x > 0] = 2  # torch fills under the mask
        x.index_copy_(0, torch.arange(3, device=DEVICE), x.cumsum(0))
        Arriving(x.sort()[0])
        x[1:].add_(1)
        assert not counts.waits
        assert isinstance(x, OnDevice)
        assert x.on_cpu.tolist() == [2, 5, 7]


def test_views_launch_nothing_and_operations_do() -> None:
    with look_alike() as counts:
        x = torch.ones(2, 3).to(DEVICE)
        counts.clear()
        x.view(6)[1:].unsqueeze(0).detach()
        assert counts.launches == 0
        torch._foreach_add_([x, x.clone()], 1)
        assert counts.launches == 2  # of both tensors together, and of the copy


if __name__ == "__main__":
    with unittest.mock.patch.object(compiled, "available", return_value=False):
        write()
    print(TABLE)
