"""Optimisers: which parameters decay, and whose learning rate is a multiple."""

import math
from typing import Any

import pytest
import torch
from oracles.selfsupervised import lars_steps
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from selfsup.config import OptimConfig
from selfsup.core.errors import UserError
from selfsup.training.optim import clipping, optimizer, peak_lr, plan, schedule


def network() -> tuple[nn.Module, nn.Parameter]:
    """Weights of two dimensions, biases and norms of one, a frozen one, and proxies apart."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False))
    model[2].weight.requires_grad_(False)
    proxies = nn.Parameter(torch.ones(4, 2))
    model.register_parameter("proxies", proxies)
    return model, proxies


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_weights_decay_and_biases_norms_and_proxies_do_not(name: str) -> None:
    model, proxies = network()
    config = OptimConfig(name=name, weight_decay=0.3)  # type: ignore[arg-type]
    made = optimizer(model, config, loss_parameters=[proxies], factor=7.0)
    found = {
        id(p): (group["weight_decay"], group["factor"])
        for group in made.param_groups
        for p in group["params"]
    }
    names = {n: found.get(id(p)) for n, p in model.named_parameters()}
    assert names == {
        "proxies": (0.0, 7.0),
        "0.weight": (0.3, 1.0),
        "0.bias": (0.0, 1.0),
        "1.weight": (0.0, 1.0),
        "1.bias": (0.0, 1.0),
        "2.weight": None,  # frozen
    }


def test_the_learning_rate_of_parameters_apart_is_a_multiple_of_the_others() -> None:
    model, proxies = network()
    config = OptimConfig(warmup=0.5, rule="none", lr=0.5)
    made = optimizer(model, config, loss_parameters=[proxies], factor=100.0)
    for step, lr in ((1, 0.5), (0, 0.25)):  # set anew at each step, not multiplied again
        assert schedule(made, config, batch=8, step=step, total=4) == lr
        rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
        assert rates.pop(id(proxies)) == 100 * lr
        assert set(rates.values()) == {lr}


def test_proxies_move_by_their_multiple_of_the_learning_rate() -> None:
    model, proxies = network()
    config = OptimConfig(weight_decay=0.5, lr=0.01, warmup=0)
    made = optimizer(model, config, loss_parameters=[proxies], factor=10.0)
    schedule(made, config, batch=256, step=0, total=4)
    proxies.grad = torch.ones_like(proxies)
    made.step()
    torch.testing.assert_close(proxies.detach(), torch.full((4, 2), 1 - 10 * 0.01))


def test_sgd_has_the_momentum_that_was_set() -> None:
    model, _ = network()
    made = optimizer(model, OptimConfig(momentum=0.4))
    assert {group["momentum"] for group in made.param_groups} == {0.4}


@pytest.mark.parametrize(("rule", "rates"), [("linear", 2), ("sqrt", 2**0.5), ("none", 1)])
def test_twice_the_batch_has_the_rate_of_its_rule_and_256_has_the_set_one(
    rule: str, rates: float
) -> None:
    config = OptimConfig(lr=0.3, rule=rule)  # type: ignore[arg-type]
    assert peak_lr(config, 256) == 0.3
    assert peak_lr(config, 512) == pytest.approx(0.3 * rates, abs=1e-12)


def test_the_rule_follows_from_the_optimiser_unless_it_is_given() -> None:
    rates = {
        name: peak_lr(OptimConfig(name=name, lr=0.1), 1024) for name in ("sgd", "adamw", "lars")
    }
    assert rates == pytest.approx({"sgd": 0.4, "adamw": 0.2, "lars": 0.2})
    assert peak_lr(OptimConfig(name="adamw", lr=0.1, rule="linear"), 1024) == pytest.approx(0.4)


def test_the_square_root_rule_is_simclrs() -> None:
    assert peak_lr(OptimConfig(lr=0.075 * 16, rule="sqrt"), 4096) == pytest.approx(0.075 * 64)


def test_decay_goes_to_its_end_by_a_cosine_and_spares_biases_norms_and_proxies() -> None:
    model, proxies = network()
    config = OptimConfig(weight_decay=0.04, final_decay=0.4)
    made = optimizer(model, config, loss_parameters=[proxies])
    found = []
    for step in (0, 5, 10):
        schedule(made, config, batch=8, step=step, total=10)
        found.append([group["weight_decay"] for group in made.param_groups])
    assert found == [[pytest.approx(x), 0, 0] for x in (0.04, 0.22, 0.4)]


def test_steady_parameters_keep_the_highest_rate_and_decay_like_others() -> None:
    model, _ = network()
    constant_lr = [model[0].weight, model[0].bias]  # type: ignore[index]
    config = OptimConfig(warmup=0.5, rule="none", lr=0.5, weight_decay=0.3)
    made = optimizer(model, config, constant_lr=constant_lr)
    schedule(made, config, batch=8, step=0, total=10)
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in made.param_groups}
    assert found == {
        "weights": (0.1, 0.3),
        "biases and norms": (0.1, 0.0),
        "constant-rate weights": (0.5, 0.3),
        "constant-rate biases and norms": (0.5, 0.0),
    }


def test_parameters_of_the_loss_decay_where_the_method_says_so() -> None:
    model, proxies = network()
    config = OptimConfig(weight_decay=0.04, final_decay=0.4)
    made = optimizer(model, config, loss_parameters=[proxies], decays=True)
    schedule(made, config, batch=8, step=10, total=10)
    assert [group["weight_decay"] for group in made.param_groups] == [0.4, 0, 0.4]


def test_gradients_are_clipped_together_or_each_by_itself() -> None:
    def clipped(**limits: float) -> list[list[float]]:
        parameters = [nn.Parameter(torch.zeros(2)) for _ in range(4)]
        for parameter, gradient in zip(parameters, ([3.0, 4], [0.3, 0.4], [0.0, 0]), strict=False):
            parameter.grad = torch.tensor(gradient)
        clip = clipping(OptimConfig(**limits))  # type: ignore[arg-type]
        assert clip is not None
        clip(parameters)
        return [p.grad.tolist() for p in parameters if p.grad is not None]

    each = [pytest.approx(x) for x in ([0.6, 0.8], [0.3, 0.4], [0.0, 0.0])]
    assert clipped(clip_each=1.0) == each
    together = (torch.tensor([[3, 4], [0.3, 0.4], [0, 0]]) / math.hypot(5, 0.5)).tolist()
    assert clipped(clip=1.0) == [pytest.approx(x, abs=1e-5) for x in together]
    assert clipped(clip=100.0) == [pytest.approx(x) for x in ([3, 4], [0.3, 0.4], [0, 0])]
    assert clipping(OptimConfig()) is None


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"lr": 0.0}, "--optim.lr must be above 0"),
        ({"warmup": 5.0}, "--optim.warmup is a fraction of the run below 1, not 5"),
        ({"momentum": 1.0}, "--optim.momentum must be below 1"),
        ({"trust": 0.0}, "--optim.trust must be above 0"),
        ({"clip": -1.0}, "--optim.clip must be above 0, not -1"),
        ({"clip_each": 0.0}, "--optim.clip-each must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        optimizer(network()[0], OptimConfig(**setting))  # type: ignore[arg-type]


def test_lars_is_the_formula_tensor_by_tensor_for_ten_steps() -> None:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    shapes = [(3, 4), (2, 2, 2), (4,), (5, 2)]
    trained = [nn.Parameter(normal(*shape)) for shape in shapes]
    with torch.no_grad():
        trained[3].zero_()  # without a length there is nothing to adapt to
    gradients = [[normal(*shape) for shape in shapes] for _ in range(10)]
    gradients[0][1].zero_()
    expected = lars_steps(
        [p.detach().flatten().tolist() for p in trained],
        [[x.flatten().tolist() for x in step] for step in gradients],
        lr=0.7,
        momentum=0.8,
        weight_decay=0.1,
        trust=0.02,
        adapted=[True, True, False, True],
    )
    config = OptimConfig(name="lars", momentum=0.8, weight_decay=0.1, trust=0.02)
    made = optimizer(nn.ParameterList(trained), config)
    for group in made.param_groups:
        group["lr"] = 0.7
    for step in gradients:
        for p, gradient in zip(trained, step, strict=True):
            p.grad = gradient
        made.step()
    for p, values in zip(trained, expected, strict=True):
        now = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(p.detach().flatten(), now, rtol=0, atol=1e-12)


class Calls(TorchDispatchMode):
    """Counts calls into torch: on a GPU each is a launch or more."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.number += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip_each", [None, 1.0])
def test_calls_of_a_step_of_lars_do_not_grow_with_the_number_of_tensors(
    clip_each: float | None,
) -> None:
    def calls(tensors: int) -> int:
        weights = nn.ParameterList([nn.Parameter(torch.ones(2, 2)) for _ in range(tensors)])
        config = OptimConfig(name="lars", clip_each=clip_each)
        made, clip = optimizer(weights, config), clipping(config)
        for p in weights:
            p.grad = torch.ones(2, 2)
        made.step()  # makes the momenta
        with Calls() as counted:
            if clip is not None:
                clip(list(weights))
            made.step()
        number: int = counted.number
        return number

    assert calls(40) == calls(4) < 30


def test_the_rate_stands_outside_lars_momentum() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    made = optimizer(nn.ParameterList([weight]), OptimConfig(name="lars", weight_decay=0))
    for lr, expected in ((0.0, 5.0), (1.0, 5.0 - 0.005 * 1.9)):
        made.param_groups[0]["lr"] = lr
        weight.grad = weight.detach() / 5  # along the weight, of length 1
        made.step()
        assert weight.norm().item() == pytest.approx(expected, abs=1e-6)


def test_the_plan_says_batch_negatives_rate_and_groups_in_80_columns() -> None:
    model, proxies = network()
    config = OptimConfig(name="lars", lr=0.3, weight_decay=1e-6, final_decay=1e-5, warmup=0.1)
    made = optimizer(model, config, loss_parameters=[proxies], factor=7.0)
    told = plan(made, config, batch=4096, total=100, negatives=8190)
    assert told.splitlines() == [
        "  batch      4096 images, 8,190 negatives for each embedding",
        "  rate       1.2 = 0.3 x sqrt(4096/256), after 10 of 100 steps, then a cosine",
        "             to 0",
        "  lars       weights: 1 tensors, 6 numbers, decay 1e-06 to 1e-05",
        "  lars       biases and norms: 3 tensors, 6 numbers, no decay, not adapted",
        "  lars       loss parameters: 1 tensors, 8 numbers, no decay, rate x 7",
    ]
    constant_lr = optimizer(model, config, constant_lr=[model[0].bias])  # type: ignore[index]
    told = plan(constant_lr, config, batch=4096, total=100, negatives=0)
    assert "constant-rate biases and norms: 1 tensors, 2 numbers, no decay" in told
    config = OptimConfig(lr=0.3, rule="sqrt")
    told = plan(optimizer(model, config), config, batch=64, total=100, negatives=0)
    assert "64 images, no negatives" in told
    assert "0.15 = 0.3 x sqrt(64/256)" in told


def test_adamws_decay_is_apart_from_its_gradient() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    made = optimizer(nn.ParameterList([weight]), OptimConfig(name="adamw", weight_decay=0.5))
    made.param_groups[0]["lr"] = 0.1
    weight.grad = torch.zeros(2, 2)
    made.step()
    assert torch.allclose(weight.detach(), torch.full((2, 2), 1 - 0.1 * 0.5))


def test_a_warm_up_of_one_and_a_half_steps_has_two() -> None:
    made = optimizer(nn.Linear(2, 2), OptimConfig())
    config = OptimConfig(lr=1.0, rule="none", warmup=0.1)
    assert schedule(made, config, batch=8, step=0, total=15) == pytest.approx(0.5)


def test_without_an_end_of_its_own_decay_stays() -> None:
    config = OptimConfig(weight_decay=0.04)
    made = optimizer(nn.Linear(2, 2), config)
    for step in (0, 5, 10):
        schedule(made, config, batch=8, step=step, total=10)
        assert made.param_groups[0]["weight_decay"] == pytest.approx(0.04)


def test_lars_leaves_alone_what_has_no_gradient_and_stays_finite_where_it_is_0() -> None:
    still, zero = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    config = OptimConfig(name="lars", weight_decay=0)
    made = optimizer(nn.ParameterList([still, zero]), config)
    made.param_groups[0]["lr"] = 1.0
    zero.grad = torch.zeros(2, 2)
    made.step()
    assert torch.equal(still.detach(), torch.ones(2, 2))
    assert torch.equal(zero.detach(), torch.ones(2, 2))
