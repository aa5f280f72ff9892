"""Copies to a GPU, as far as a machine without one can see them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from selfsup.core import transfers
from selfsup.core.transfers import Arriving, fetch, send


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


def test_a_gpu_is_waited_for_once_for_all_copies_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    real = Tensor.to

    def to(x: Tensor, *args: Any, **settings: Any) -> Tensor:
        done.append(settings["non_blocking"])
        return real(x, *args, **settings)

    with FakeTensorMode():  # whose tensors may say that they are a GPU's
        tensors = {name: torch.empty(2, device="cuda") for name in "ab"}
        monkeypatch.setattr(Tensor, "to", to)
        monkeypatch.setattr(transfers, "wait_for", lambda device: done.append(device.type))
        assert [x.device.type for x in fetch(tensors).values()] == ["cpu", "cpu"]
    assert done == [True, True, "cuda"]


def test_what_is_fetched_is_a_copy_in_plain_layout() -> None:
    x = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last).requires_grad_()
    (copy,) = fetch({"x": x}).values()
    assert copy.is_contiguous()
    assert not copy.requires_grad
    with torch.no_grad():
        x += 1
    assert torch.equal(copy.flatten(), torch.arange(24.0))


def test_what_arrives_is_what_was_sent() -> None:
    assert Arriving(torch.tensor([1.0, 2.0])).wait().tolist() == [1.0, 2.0]


def test_what_comes_from_a_gpu_is_waited_for_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    class Event:
        def record(self) -> None:
            done.append("recorded")

        def synchronize(self) -> None:
            done.append("waited for")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    with FakeTensorMode():  # of a GPU that need not be there
        arriving = Arriving(torch.empty(2, device="cuda"))
        assert done == ["recorded"]
        assert arriving.wait().device.type == "cpu"
    assert done == ["recorded", "waited for"]
