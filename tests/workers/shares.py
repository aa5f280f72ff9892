"""Writes how far each loss that is shared out is from the same loss alone. Started by torchrun.

Saves {name: (largest error of value and gradient, how often sums were added up, whether all
processes have the same bits)}.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from losses.cases import CASES
from losses.test_selfsupervised import LOSSES
from torch import Tensor

from selfsup.core import distributed
from selfsup.losses import dcl, dclw, ibot, info_nce, nt_xent, shares

Found = tuple[float, int, bool]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_patches(a: Tensor, b: Tensor) -> Tensor:
    layer, centre, weights = normal(9, a.shape[1], seed=5), normal(9, seed=6), normal(40, seed=7)
    weights = weights.clamp(min=0)
    return ibot(a, layer, b, layer, centre, weights, temperature=0.3, teacher_temperature=0.2)


def losses() -> dict[str, Callable[[Tensor], Tensor]]:
    labels = torch.arange(40) % 4  # of as many proxies
    other = normal(40, 5, seed=2)
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "nt-xent": lambda x: nt_xent(x, other, temperature=0.3),
        "nt-xent cold": lambda x: nt_xent(x.float(), other.float(), temperature=0.01),
        "info-nce": lambda x: info_nce(x, other, temperature=0.3),
        "info-nce queue": lambda x: info_nce(x, other, temperature=0.3, queue=other.flip(0)),
        "dcl": lambda x: dcl(x, other, temperature=0.3),
        "dclw": lambda x: dclw(x, other, temperature=0.3, sigma=0.5),
        "ibot": lambda x: of_patches(x, other),
    }
    for name, case in CASES.items():
        found[name] = lambda x, case=case: case.ours(x, labels, None)  # type: ignore[misc]
        if case.anchors:
            found[f"{name}, 17 anchors"] = partial(lambda c, x: c.ours(x, labels, 17), case)
    return found | {f"self {n}": partial(lambda f, x: f(x, other), f) for n, f in LOSSES.items()}


def value_and_gradient(loss: Callable[[Tensor], Tensor]) -> Tensor:
    x = normal(40, 5, seed=1).requires_grad_()
    value = loss(x)
    value.backward()
    assert x.grad is not None
    return torch.cat([value.detach().reshape(1), x.grad.flatten()]).double()


def compare(loss: Callable[[Tensor], Tensor]) -> Found:
    alone = value_and_gradient(loss)
    with (
        patch.object(shares, "add_up", wraps=distributed.add_up) as added,
        shares.shared_out(),
    ):
        shared = value_and_gradient(loss)
    every = distributed.gather_rows(shared[None])
    return float((shared - alone).abs().max()), added.call_count, bool((every == shared).all())


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.start()
    with shares.whatever_size():
        made = {name: compare(loss) for name, loss in losses().items()}
    if distributed.is_main():
        torch.save(made, Path(sys.argv[1]))
    distributed.finish()
