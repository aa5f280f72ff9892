"""Optimisers: which parameters decay, and whose learning rate is a multiple."""

import pytest
import torch
from torch import nn

from selfsup.config import OptimConfig
from selfsup.optim import optimizer, peak_lr, set_lr


def network() -> tuple[nn.Module, nn.Parameter]:
    """Weights of two dimensions, biases and norms of one, a frozen one, and proxies apart."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False))
    model[2].weight.requires_grad_(False)
    proxies = nn.Parameter(torch.ones(4, 2))
    model.register_parameter("proxies", proxies)
    return model, proxies


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weights_decay_and_biases_norms_and_proxies_do_not(name: str) -> None:
    model, proxies = network()
    config = OptimConfig(name=name, weight_decay=0.3)  # type: ignore[arg-type]
    made = optimizer(model, config, apart=[proxies], factor=7.0)
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
    made = optimizer(model, OptimConfig(), apart=[proxies], factor=100.0)
    for lr in (0.5, 0.25):  # set anew at each step, not multiplied again
        set_lr(made, lr)
        rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
        assert rates.pop(id(proxies)) == 100 * lr
        assert set(rates.values()) == {lr}


def test_proxies_move_by_their_multiple_of_the_learning_rate() -> None:
    model, proxies = network()
    made = optimizer(model, OptimConfig(weight_decay=0.5), apart=[proxies], factor=10.0)
    set_lr(made, 0.01)
    proxies.grad = torch.ones_like(proxies)
    made.step()
    torch.testing.assert_close(proxies.detach(), torch.full((4, 2), 1 - 10 * 0.01))


def test_sgd_has_the_momentum_that_was_set() -> None:
    model, _ = network()
    made = optimizer(model, OptimConfig(momentum=0.4))
    assert {group["momentum"] for group in made.param_groups} == {0.4}


def test_twice_the_batch_has_twice_the_learning_rate_and_256_has_the_set_one() -> None:
    assert peak_lr(OptimConfig(lr=0.3), 256) == 0.3
    assert peak_lr(OptimConfig(lr=0.3), 512) == 0.6
