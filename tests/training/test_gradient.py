"""One step against the loss taken backward at once, and each part of it by itself."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from workers.gradients import NORMS

from selfsup.augment.apply import apply
from selfsup.config import LocalViewsConfig, OptimConfig
from selfsup.core.errors import UserError
from selfsup.core.seeds import StepInfo, seed_for
from selfsup.doctor.cases import CASES
from selfsup.doctor.certificate import BATCH, FIRST, prepare
from selfsup.training import step as step_module
from selfsup.training.optim import clipping

pytestmark = pytest.mark.slow


def weights(method: nn.Module) -> torch.Tensor:
    """All that is trained, in one row."""
    return torch.cat([p.detach().flatten() for p in method.parameters() if p.requires_grad])


@pytest.mark.parametrize("case", ["simclr", "swav"])
def test_the_whole_gradient_is_clipped_to_its_limit_before_the_step(case: str) -> None:
    step, batches = prepare(CASES[case], lr=1.0, dtype=torch.float64)
    step.clip = clipping(OptimConfig(clip=0.01))
    before = weights(step.method)
    step(batches[FIRST])
    assert (weights(step.method) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_process_has_its_rows_times_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, _ = prepare(CASES["simclr"])
    monkeypatch.setattr("selfsup.training.step.world", lambda: (1, 3))
    assert step.local_rows(torch.arange(12.0), 4).tolist() == [12, 15, 18, 21]


def test_each_micro_batch_has_random_numbers_of_its_own_the_same_in_both_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, batches = prepare(CASES["simclr"], micro_batches=2)
    seen: list[int] = []
    step.method.encoder.register_forward_pre_hook(lambda *call: seen.append(torch.initial_seed()))
    step.gradient(batches[FIRST])
    expected = [seed_for(0, FIRST, f"network/{i}") for i in (0, 1)]
    assert seen == expected * 2
    monkeypatch.setattr("selfsup.training.step.world", lambda: (1, 2))
    step._embed(batches[FIRST], 1, step._chunks(16))
    assert seen[-1] == seed_for(0, FIRST, "network/3")


@pytest.mark.parametrize("case", ["simclr", "dinov2", "swav"])
def test_views_of_micro_batches_are_made_once_if_there_is_room_and_twice_if_not(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gradients = [], []
    for room in (step_module.HOST_ROOM, 0):
        monkeypatch.setattr(step_module, "HOST_ROOM", room)
        step, batches = prepare(CASES[case], micro_batches=4)
        calls: list[Any] = []
        inputs = step.inputs

        def counted(*call: Any, calls: list[Any] = calls, inputs: Any = inputs) -> Any:
            calls.append(call)
            return inputs(*call)

        monkeypatch.setattr(step, "inputs", counted)
        step.gradient(batches[FIRST])
        made.append(len(calls))
        gradients.append([p.grad for p in step.method.parameters() if p.grad is not None])
    assert made == [4, 8]
    for once, twice in zip(*gradients, strict=True):
        assert torch.equal(once, twice)


def test_running_statistics_take_in_each_micro_batch_once() -> None:
    step, batches = prepare(CASES["simclr"], NORMS["batch"], micro_batches=2)
    step(batches[FIRST])
    buffers = step.method.named_buffers()
    assert {int(x) for n, x in buffers if n.endswith("num_batches_tracked")} == {2}


def test_the_loss_sees_embeddings_of_half_precision_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, batches = prepare(CASES["simclr"])
    monkeypatch.setattr(
        step.accelerator, "autocast", partial(torch.autocast, "cpu", torch.bfloat16)
    )
    step.gradient(batches[FIRST])
    assert {x.dtype for x in step.embeddings} == {torch.float32}


def test_views_of_each_size_are_coloured_by_their_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, batches = prepare(CASES["dino"])
    seen: list[tuple[int, int, bool]] = []

    def seeing(crops: Any, draws: Any, config: Any, changes: Any, *, fused: bool) -> Any:
        seen.append((crops.shape[-1], config.size, fused))
        return apply(crops, draws, config, changes)

    monkeypatch.setattr("selfsup.training.step.apply", seeing)
    step.gradient(batches[FIRST])
    step.fused = True
    step.gradient(batches[FIRST])
    assert seen == [(16, 16, False), (8, 8, False), (16, 16, True), (8, 8, True)]


def test_the_moment_is_that_of_the_batch_in_the_run() -> None:
    step, batches = prepare(CASES["simclr"])
    step.seed = 7
    assert step.info(batches[3]) == StepInfo(3, 10, 7)


def test_one_view_of_each_of_two_sizes_is_not_two_views() -> None:
    views = replace(CASES["byol"].views, views=1, local=LocalViewsConfig(views=1, size=8))
    step, batches = prepare(CASES["byol"]._replace(views=views))
    with pytest.raises(UserError, match="compares two views"):
        step(batches[0])


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_loss_taken_backward_at_once(
    case: str, micro_batches: int
) -> None:
    step, batches = prepare(CASES[case], dtype=torch.float64, micro_batches=micro_batches)
    batch, method = batches[FIRST], step.method
    step.gradient(batch)
    found = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    step.optimizer.zero_grad()
    groups = zip(batch.crops, batch.draws, CASES[case].views.by_size(), strict=True)
    views = [apply(*group).double() for group in groups]
    drawn = method.draw(BATCH, CASES[case].views.by_size(), step.info(batch))
    embeddings = method.look_up(method.embed((*views, *drawn)), batch.positions)
    method.loss(embeddings, batch.labels, step.info(batch)).backward()
    plain = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11)
