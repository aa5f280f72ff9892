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
from typing import NamedTuple

import pytest
import torch
from look_alike import DEVICE, Accelerator, Counts, OnDevice, look_alike
from workers.gradients import METHODS, NORMS

from selfsup import catalog
from selfsup.core import compiled, distributed
from selfsup.doctor import certificate
from selfsup.doctor.certificate import FIRST

TABLE = Path(__file__).parents[1] / "golden" / "launches_and_waits.txt"
VERSION = ".".join(torch.__version__.split(".")[:2])
STEPS = 2
QUICK = ["simclr/group", "dino/group", "triplet/group", "pairs circle/group", "proxies/group"]
CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


class Cost(NamedTuple):
    """Of one step."""

    launches: int
    waits: int


class Steps(NamedTuple):
    """Losses and lengths of the embeddings of some steps, and the cost of the last."""

    values: list[float]
    cost: Cost
    waits: Counter[str]


def steps(name: str, counts: Counts) -> Steps:
    """Take steps of a case, and compute what the log shows of the last one."""
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
    return Steps([x.item() for x in results], cost, waits)


def steps_on_the_device(name: str) -> Steps:
    start = unittest.mock.patch.object(distributed, "start", Accelerator)
    with look_alike() as counts, start:
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
    for name in METHODS:
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
    row = table()[name]
    places = "\n".join(f"  {n} x {place}" for place, n in sorted(there.waits.items()))
    assert there.cost.waits <= row.waits, f"{row.waits} waits in {TABLE}; now:\n{places}"
    if TABLE.read_text().startswith(f"# torch {VERSION};"):  # others split operations differently
        assert there.cost.launches <= row.launches


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
            "copy to the device": lambda: torch.tensor([1.0], device=DEVICE),
            "index from the host": lambda: x[torch.tensor([0])],
        }
        for reason, wait in waits.items():
            counts.clear()
            wait()
            assert counts.waits == {f"{reason} at outside of the package": 1}


def test_nothing_else_waits() -> None:
    with look_alike() as counts:
        x = torch.ones(3).to(DEVICE, non_blocking=True)
        x[x > 0] = 2  # torch fills under the mask
        x.index_copy_(0, torch.arange(3, device=DEVICE), x.cumsum(0))
        x.sort()[0].to("cpu", non_blocking=True)
        x[1:].add_(1)
        assert not counts.waits
        assert isinstance(x, OnDevice)
        assert x.inner.tolist() == [2, 5, 7]


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
