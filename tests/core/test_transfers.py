"""Copies to a GPU, as far as a machine without one can see them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from selfsup.core.transfers import Arriving, send


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_what_goes_to_a_gpu_is_pinned_first_and_not_waited_for(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []

    def pin(x: Tensor) -> Tensor:
        done.append("pinned")
        return x

    def to(x: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        done.append((device.type, non_blocking))
        return x

    x = torch.arange(3.0)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    assert torch.equal(send(x, torch.device(kind)), x)
    assert done == ["pinned"] * (kind == "cuda") + [(kind, True)]


def test_a_type_is_changed_before_the_copy() -> None:
    assert send(torch.tensor([1.5]), torch.device("cpu"), torch.float64).dtype == torch.float64


def test_what_arrives_is_what_was_sent() -> None:
    assert Arriving(torch.tensor([1.0, 2.0])).wait().tolist() == [1.0, 2.0]
