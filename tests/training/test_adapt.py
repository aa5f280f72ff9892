"""Adapting weights: rates by layer, freezing, LoRA and activation checkpointing in training."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from launch import ROOT, run, torchrun
from timm.optim._param_groups import param_groups_layer_decay
from torch import Tensor, nn
from workers.adapted import (
    CONVNEXT,
    DROPS,
    RESNET,
    RUNS,
    VIT,
    adapted,
    byol,
    gradients,
    simclr,
    triplet,
)
from workers.gradients import METHODS, NORMS

from selfsup.config import EncoderConfig, OptimConfig, TrainConfig, TripletConfig
from selfsup.core.errors import UserError
from selfsup.doctor.cases import ONE, TWO, Case
from selfsup.doctor.certificate import Measurement, measure, prepare
from selfsup.encoders.encoder import Encoder, build
from selfsup.methods.method import Method
from selfsup.methods.triplet_ranking import Triplet
from selfsup.training.adapt import adapt, frozen, rate_factors
from selfsup.training.optim import optimizer, plan, schedule
from selfsup.training.step import Stepper

FAMILIES = ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"]


def settings(**values: Any) -> TrainConfig:
    return TrainConfig(data="", out="", encoder=EncoderConfig(name="a model"), **values)


def factors(method: Method, **values: float) -> dict[str, float]:
    """The rate of each parameter, by name."""
    by_id = rate_factors(method, OptimConfig(**values), "a model")  # type: ignore[arg-type]
    return {n: by_id[id(p)] for n, p in method.named_parameters()}


@pytest.mark.parametrize("dim", [0, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_layer_decay_is_timms_for_each_parameter(name: str, dim: int) -> None:
    encoder = Encoder(timm.create_model(name, num_classes=dim))
    groups = param_groups_layer_decay(encoder.model, layer_decay=0.7)
    expected = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    method = Triplet(encoder, TripletConfig(dim=dim))
    found = rate_factors(method, OptimConfig(layer_decay=0.7), name)
    assert found == pytest.approx(expected)
    assert len(set(found.values())) > 4


def test_heads_have_factor_1_under_layer_decay() -> None:
    found = factors(byol(build(VIT, 16)), layer_decay=0.5)
    student = {n: x for n, x in found.items() if not n.startswith("teacher")}
    assert {x for n, x in student.items() if not n.startswith("encoder")} == {1.0}
    assert min(student.values()) == 0.5**6  # a stem and six blocks


def test_the_head_factor_is_of_all_that_is_not_the_encoder() -> None:
    found = factors(byol(build(VIT, 16)), head_factor=10.0)
    student = {n: x for n, x in found.items() if not n.startswith("teacher")}
    assert {n.split(".")[0] for n, x in student.items() if x == 10} == {"projector", "predictor"}
    assert {n.split(".")[0] for n, x in student.items() if x == 1} == {"encoder"}


def test_an_embedding_head_has_the_head_factor_only_if_it_is_new() -> None:
    new = factors(triplet(build(VIT, 16)), head_factor=10.0, layer_decay=0.5)
    assert {n for n, x in new.items() if x == 10} == {
        "encoder.model.head.weight",
        "encoder.model.head.bias",
    }
    old = triplet(Encoder(timm.create_model("test_vit", num_classes=8)))
    assert max(factors(old, head_factor=10.0).values()) == 1


def test_the_schedule_multiplies_the_rate_of_each_layer_at_every_step() -> None:
    method = triplet(build(VIT, 16))
    config = OptimConfig(lr=0.5, rule="none", layer_decay=0.5, head_factor=4, warmup=0.5)
    by_id = rate_factors(method, config, "test_vit")
    made = optimizer(method, config, rates=by_id)
    for step, lr in ((1, 0.5), (0, 0.25)):
        assert schedule(made, config, batch=8, step=step, total=4) == lr
        rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
        assert rates == pytest.approx({key: x * lr for key, x in by_id.items()})


def test_the_plan_says_rates_by_layer_in_one_line() -> None:
    method = triplet(build(VIT, 16))
    config = OptimConfig(name="adamw", lr=0.1, layer_decay=0.5, head_factor=10)
    made = optimizer(method, config, rates=rate_factors(method, config, "test_vit"))
    assert len(made.param_groups) == 2 * 8
    lines = plan(made, config, batch=256, total=10, negatives=0).splitlines()
    assert len(lines) == 5
    assert (
        lines[-1]
        == "  layers     rate x 0.0078 at the input to x 1 at the output, x 10 in new layers"
    )
    assert "adamw      weights: 28 tensors" in lines[2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_decay": 0.0}, "--optim.layer-decay must be above 0 and at most 1, not 0"),
        ({"layer_decay": 1.5}, "--optim.layer-decay must be above 0 and at most 1, not 1.5"),
        ({"head_factor": 0.0}, "--optim.head-factor must be above 0, not 0"),
    ],
)
def test_rates_that_make_no_sense_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        factors(simclr(build(VIT, 16)), **values)


@pytest.mark.parametrize(
    ("encoder", "values", "message"),
    [
        (VIT, {"freeze": 8}, "--freeze 8: a model has 7 blocks, its stem included. .* 1 to 7"),
        (VIT, {"freeze": -1}, "--freeze -1: a model has 7 blocks"),
        (RESNET, {"freeze": 6}, "--freeze 6: a model has 5 blocks"),
        (VIT, {"lora": -1}, "--lora must be 0 or more, not -1"),
        (VIT, {"lora": 65}, "--lora 65: the narrowest layer of a model has width 64"),
        (VIT, {"lora": 4, "freeze": "all"}, "--lora 4 trains layers that --freeze all freezes"),
        (RESNET, {"lora": 4}, "--lora 4 is for ViTs; a model has no attention"),
        (CONVNEXT, {"lora": 4}, "--lora 4 is for ViTs; a model has no attention"),
    ],
)
def test_settings_that_do_not_fit_the_encoder_are_refused_in_a_sentence(
    encoder: EncoderConfig, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        adapt(simclr(build(encoder, 32)), settings(**values))


def test_a_run_that_would_train_nothing_is_refused() -> None:
    method = Triplet(build(VIT, 16), TripletConfig(dim=0))
    with pytest.raises(UserError, match="--freeze all leaves nothing to train"):
        adapt(method, settings(freeze="all"))


def test_what_timm_has_no_groups_or_no_checkpointing_for_is_refused() -> None:
    method = simclr(Encoder(timm.create_model("dla46_c", num_classes=0)))
    with pytest.raises(UserError, match="timm has no activation checkpointing for a model"):
        adapt(method, settings(checkpoint_activations=True))
    method.encoder.model = nn.Flatten()
    with pytest.raises(UserError, match="timm has no groups of layers for a model"):
        rate_factors(method, OptimConfig(layer_decay=0.5), "a model")


STEPS = 2
Make = Callable[[Encoder], Method]


def state_before_and_after(
    make: Make, encoder: EncoderConfig, micro_batches: int
) -> list[dict[str, Tensor]]:
    """The state of a method before and after two steps, with calls of train() on the way."""
    step, batches = prepare(
        Case(make, TWO), encoder, micro_batches=micro_batches, lr=0.1, dtype=torch.float64
    )
    states = [{n: x.clone() for n, x in step.method.state_dict().items()}]
    for i in range(STEPS):
        step.method.eval()
        step.method.train()  # as an evaluation on the way does
        step.method.encoder.model.train()
        step(batches[i])
        step.method.after_step(step.embeddings, step.labels, step.info(batches[i]))
    states.append({n: x.clone() for n, x in step.method.state_dict().items()})
    return states


FROZEN = {
    "resnet": (RESNET, 3, ("conv1", "bn1", "layer1", "layer2")),
    "vit": (VIT, 2, ("cls_token", "pos_embed", "patch_embed", "blocks.0")),
    "convnext": (CONVNEXT, 2, ("stem", "stages.0.blocks.0")),
}


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    "name",
    ["resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "convnext"))],
)
def test_frozen_blocks_and_their_statistics_stay_and_all_others_move(
    name: str, micro_batches: int
) -> None:
    encoder, blocks, names = FROZEN[name]
    before, after = state_before_and_after(adapted(byol, freeze=blocks), encoder, micro_batches)
    for network in ("encoder.model.", "teacher.network.0.model."):
        fixed = tuple(
            f"{network}{n}." if "_" not in n or "patch" in n else network + n for n in names
        )
        inside = [n for n in before if n.startswith(fixed)]
        outside = [n for n in before if n.startswith(network) and n not in inside]
        assert inside
        assert all(torch.equal(before[n], after[n]) for n in inside)
        assert [n for n in outside if torch.equal(before[n], after[n])] == []


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_frozen_encoder_leaves_only_the_embedding_head_to_train(micro_batches: int) -> None:
    step, batches = prepare(
        Case(adapted(triplet, freeze="all"), ONE), RESNET, micro_batches=micro_batches, lr=0.1
    )
    before = {n: x.clone() for n, x in step.method.state_dict().items()}
    step.method.train()
    step(batches[0])
    moved = {n for n, x in step.method.state_dict().items() if not torch.equal(x, before[n])}
    assert moved == {"encoder.model.fc.weight", "encoder.model.fc.bias"}


def test_frozen_blocks_drop_nothing_and_the_others_do() -> None:
    encoder = build(replace(VIT, args=DROPS), 16)
    adapt(simclr(encoder), settings(freeze=2))
    encoder.train()
    x = torch.randn(4, 3, 16, 16)
    outs: list[Tensor] = []
    blocks = encoder.model.blocks
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, out: outs.append(out))
    encoder(x)
    encoder(x)
    assert torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[1], outs[3])


def test_the_plan_counts_what_is_frozen() -> None:
    method = simclr(build(VIT, 16))
    assert frozen(method) == ""
    adapt(method, settings(freeze="all"))
    count = sum(p.numel() for p in method.encoder.parameters())
    assert frozen(method) == f"  frozen     78 tensors, {count:,} numbers"


def test_lora_trains_its_matrices_and_the_heads_alone() -> None:
    method = triplet(build(VIT, 16))
    adapt(method, settings(lora=4, freeze=3))
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    lora = {
        f"encoder.model.blocks.{i}.{layer}.{x}"
        for i in range(2, 6)
        for layer in layers
        for x in "ab"
    }
    assert trained == lora | {"encoder.model.head.weight", "encoder.model.head.bias"}


def measured(
    make: Make, encoder: EncoderConfig, micro_batches: int, *, recomputes: bool
) -> Measurement:
    return measure(
        ["run"],
        micro_batches=micro_batches,
        steps=STEPS,
        lr=1e-2,
        dtype=torch.float64,
        cases={"run": Case(make, TWO)},
        encoder=encoder,
        stepper=partial(Stepper, recomputes=recomputes),
    )["run"]


@pytest.mark.parametrize("micro_batches", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "encoder",
    [
        replace(VIT, args=DROPS),
        RESNET,
        pytest.param(CONVNEXT, marks=pytest.mark.slow),
        pytest.param(EncoderConfig(name="test_efficientnet"), marks=pytest.mark.slow),
    ],
    ids=lambda e: e.name or "resnet",
)
def test_checkpointing_changes_no_gradient_and_updates_statistics_once(
    encoder: EncoderConfig, micro_batches: int
) -> None:
    kept = measured(simclr, encoder, micro_batches, recomputes=False)
    again = adapted(simclr, checkpoint_activations=True)
    recomputed = measured(again, encoder, micro_batches, recomputes=True)
    for a, b in ((kept.gradients, recomputed.gradients), (kept.state, recomputed.state)):
        assert a.keys() == b.keys()
        for n in a:
            torch.testing.assert_close(a[n], b[n], rtol=0, atol=1e-12)


def test_checkpointing_runs_each_block_of_a_step_twice() -> None:
    counts = []
    for on in (False, True):
        step, batches = prepare(
            Case(adapted(simclr, checkpoint_activations=on), TWO),
            VIT,
            stepper=partial(Stepper, recomputes=on),
        )
        calls: list[nn.Module] = []
        step.method.encoder.model.blocks[2].register_forward_pre_hook(lambda m, i: calls.append(m))  # noqa: B023
        step(batches[0])
        counts.append(len(calls))
    assert counts == [1, 2]


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("simclr/group", ["projector"]),
        ("byol/group", ["projector", "predictor", "teacher.network.1"]),
        ("dinov2/vit", ["heads.0", "heads.1", "teacher.network.1", "teacher.network.2"]),
        ("mae/vit", ["decoder"]),
        ("triplet/group", []),
        ("proxies+distil/group", ["head"]),
    ],
)
def test_heads_are_compiled_with_the_encoder(case: str, names: list[str]) -> None:
    method = prepare(METHODS[case], NORMS[case.split("/")[1]])[0].method
    compiled = {n for n, m in method.named_modules() if m._compiled_call_impl is not None}
    assert not compiled
    adapt(method, replace(settings(), encoder=EncoderConfig(name="a model", compile=True)))
    compiled = {n for n, m in method.named_modules() if m._compiled_call_impl is not None}
    assert compiled == set(names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at all attributes
@pytest.mark.parametrize("case", ["byol/group", "mae/vit"])
def test_compiled_heads_train_as_others_do(case: str) -> None:
    losses = []
    for compile in (False, True):
        step, batches = prepare(METHODS[case], NORMS[case.split("/")[1]])
        adapt(step.method, replace(settings(), encoder=EncoderConfig(name="x", compile=compile)))
        frames = torch._dynamo.utils.counters["frames"]["ok"]
        losses += [float(step(batches[i])) for i in range(3)]
        assert (torch._dynamo.utils.counters["frames"]["ok"] > frames) == compile
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-4)


@pytest.fixture(scope="module")
def one() -> dict[str, Measurement]:
    return gradients(1)


def difference(a: Measurement, b: Measurement) -> float:
    """Largest difference of any gradient, weight or buffer."""
    pairs = [(a.gradients, b.gradients), (a.state, b.state)]
    assert all(x.keys() == y.keys() for x, y in pairs)
    return max(float((x[n] - y[n]).abs().max()) for x, y in pairs for n in x)


@pytest.mark.slow
def test_micro_batches_are_one_batch_for_adapted_encoders(one: dict[str, Measurement]) -> None:
    several = gradients(2)
    assert all(difference(one[name], several[name]) < 1e-12 for name in RUNS)


@pytest.mark.slow
def test_two_processes_are_one_for_adapted_encoders(
    one: dict[str, Measurement], tmp_path: Path
) -> None:
    file = tmp_path / "gradients.pt"
    done = run(*torchrun(2), ROOT / "tests" / "workers" / "adapted.py", file)
    assert done.returncode == 0, done.stderr
    saved: dict[Any, Any] = torch.load(file, weights_only=True)
    assert saved.pop("world") == 2
    for count in (1, 2):
        for name in RUNS:
            assert difference(one[name], Measurement(*saved[count][name])) < 1e-12, name
