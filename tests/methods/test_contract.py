"""The contract of a method, over every one of them."""

from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from launch import ROOT
from torch import Tensor, nn

from selfsup.config import EncoderConfig, SwAVConfig
from selfsup.core.errors import UserError
from selfsup.doctor.cases import CASES, QUEUE, VIT
from selfsup.doctor.certificate import FIRST, prepare
from selfsup.encoders.encoder import build
from selfsup.methods.distilled_ranking import DistilledRanking
from selfsup.methods.swav import SwAV

MOVED_AFTER_A_STEP = {
    "moco-v2": {"teacher", "queue"},
    "moco-v3": {"teacher"},
    "byol": {"teacher"},
    "swav": {"prototypes", "queue"},
    "dino": {"teacher", "teacher_prototypes", "centre"},
    "dinov2": {"teacher", "teacher_prototypes", "centre"},
    "nnclr": {"queue"},
    "tico": {"teacher", "second_moment"},
    "distil": {"queue"},
    "triplet": {"memory"},
    "pairs": {"memory"},
    "triplet+distil": {"ranking"},
}


def copied(method: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def changed(before: dict[str, Tensor], method: nn.Module) -> set[str]:
    """The parts of a method whose state is not what it was."""
    now = method.state_dict()
    assert now.keys() == before.keys()
    return {name.split(".")[0] for name in now if not torch.equal(now[name], before[name])}


@pytest.mark.parametrize("case", CASES)
def test_a_config_has_the_name_of_its_method_first(case: str) -> None:
    method = CASES[case].make(build(CASES[case].encoder, 16))
    name, _, beside = case.partition("+")
    assert isinstance(method, DistilledRanking) == bool(beside)
    config: Any = getattr(method, "ranking", method).config
    assert fields(config)[0].name == "name"
    assert config.name == name


def test_there_is_a_case_for_every_recipe() -> None:
    recipes = {file.stem.split("_", 1)[1] for file in (ROOT / "recipes").glob("[pf]*_*.py")}
    cases = {case.partition("+")[0] for case in CASES}
    missing = {name.replace("_", "-") for name in recipes} ^ cases
    assert not missing, f"{missing}: selfsup/doctor/cases.py and recipes/ have to name the same"


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_a_finite_scalar_and_every_trained_parameter_has_a_gradient(case: str) -> None:
    step, batches = prepare(CASES[case], dtype=torch.float64)
    loss = step.gradient(batches[FIRST])
    assert loss.shape == ()
    assert loss.isfinite()
    for name, parameter in step.method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != name.startswith("teacher"), name
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_the_state_dict_is_the_whole_state(case: str) -> None:
    step, batches = prepare(CASES[case])
    other, _ = prepare(CASES[case])
    for i in (0, 1, 2):
        step(batches[i])
        step.method.after_step(step.embeddings, step.labels, step.info(batches[i]))
    other.method.load_state_dict(step.method.state_dict())
    for i in (3, 4):  # SGD without momentum has no state of its own
        assert torch.equal(step(batches[i]), other(batches[i]))
        for one in (step, other):
            one.method.after_step(one.embeddings, one.labels, one.info(batches[i]))
        assert not changed(copied(step.method), other.method)


@pytest.mark.parametrize("case", CASES)
def test_only_after_step_moves_teachers_queues_and_centres(case: str) -> None:
    step, batches = prepare(CASES[case])
    for i in (0, 1):
        before = copied(step.method)
        step.gradient(batches[i])
        step.method.loss(step.embeddings, step.labels, step.info(batches[i]))
        step.method.signs(step.embeddings, step.labels, step.info(batches[i]))
        assert changed(before, step.method) == set()
        step.optimizer.step()
        parameters = step.method.named_parameters()
        trained = {name.split(".")[0] for name, p in parameters if p.requires_grad}
        assert changed(before, step.method) == trained
        before = copied(step.method)
        step.method.after_step(step.embeddings, step.labels, step.info(batches[i]))
        assert changed(before, step.method) == MOVED_AFTER_A_STEP.get(case, set())


@pytest.mark.slow
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_has_nearly_the_same_loss(
    case: str, half: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, batches = prepare(CASES[case])
    exact = step.gradient(batches[FIRST]).item()
    autocast = partial(torch.autocast, "cpu", half)
    monkeypatch.setattr(step.accelerator, "autocast", autocast)
    low = step.gradient(batches[FIRST]).item()
    assert low != exact
    assert all(p.grad.isfinite().all() for p in step.method.parameters() if p.grad is not None)
    assert low == pytest.approx(exact, rel=0.02, abs=0.02)


@pytest.mark.parametrize("case", CASES)
def test_each_size_of_views_goes_through_the_encoder_at_once(case: str) -> None:
    step, batches = prepare(CASES[case])
    seen: list[int] = []
    encoder = step.method.encoder
    first = encoder.model.patch_embed if CASES[case].encoder is VIT else encoder
    first.register_forward_hook(lambda *call: seen.append(call[2].shape[0]))
    step.gradient(batches[FIRST])
    separate = {"moco-v3", "byol", "simsiam", "barlow-twins", "vicreg", "nnclr"}
    if case in separate:  # their views are made differently and have batch statistics of their own
        assert seen == [16, 16], "it has one pass: take it out of `separate`"
    elif case in ("moco-v2", "tico"):
        assert seen == [16]
    else:
        one_pass = [16 * group.shape[1] for group in batches[FIRST].crops]
        assert seen == one_pass, "views in passes of their own belong into `separate`"


@pytest.mark.parametrize("case", ["simclr", "byol", "dino"])
def test_a_vision_transformer_is_trained_alike(case: str) -> None:
    vit = EncoderConfig(
        name="vit_tiny_patch16_224", args="{embed_dim: 16, depth: 1, num_heads: 2, patch_size: 4}"
    )
    step, batches = prepare(CASES[case], vit)
    assert step(batches[0]).isfinite()


def test_resting_prototypes_get_a_gradient_and_do_not_move() -> None:
    step, batches = prepare(
        CASES["swav"]._replace(make=lambda e: SwAV(e, SwAVConfig(prototypes=5, frozen=0.2)))
    )
    before = copied(step.method)
    step(batches[1])
    assert "prototypes" not in changed(before, step.method)
    step(batches[2])
    assert "prototypes" in changed(before, step.method)


@pytest.mark.parametrize("case", ["simclr", "byol", "barlow-twins", "supcon", "tico"])
def test_methods_of_two_views_say_so_when_they_get_others(case: str) -> None:
    three = CASES[case]._replace(views=replace(CASES[case].views, views=3))
    step, batches = prepare(three)
    with pytest.raises(UserError, match="compares two views, not 3"):
        step(batches[0])


def test_negatives_are_counted_as_the_papers_do() -> None:
    pretraining = {name: case for name, case in CASES.items() if case.views.views > 1}
    counts = {
        name: case.make(build(case.encoder, 16)).negatives(16) for name, case in pretraining.items()
    }
    assert {name: count for name, count in counts.items() if count} == {
        "simclr": 30,
        "dcl": 30,
        "moco-v2": QUEUE,
        "moco-v3": 15,
        "nnclr": 15,
        "distil": 30,
        "supcon": 30,
    }
