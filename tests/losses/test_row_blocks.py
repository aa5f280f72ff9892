"""Blocks of comparisons have the size that suits their device, and cover all rows once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from selfsup.losses import row_blocks
from selfsup.losses.measures import COSINE, Distance, Measure
from selfsup.losses.row_blocks import block_size, map_rows, split_rows
from selfsup.losses.symmetric import block_rows


@pytest.mark.parametrize(
    ("kind", "memory", "size"),
    [
        ("cpu", 0, 1 << 17),
        ("cuda", 80 << 30, 1 << 26),
        ("cuda", 8 << 30, 1 << 25),
        ("mps", 0, 1 << 22),
    ],
)
def test_blocks_fit_the_device(
    kind: str, memory: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(total_memory=memory)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    device = torch.device(kind)
    assert block_size(device) == size
    blocks = split_rows(70_000, 1 << 16, device, scale=8)
    rows = blocks[0].stop - blocks[0].start
    assert rows == {"cpu": 256, "mps": 64}.get(kind, size >> 16)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(70_000))


def test_a_block_of_views_is_a_square_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert block_rows(torch.device("cpu")) == 768
    assert block_rows(torch.device("cuda")) == 8192


@pytest.mark.parametrize("measure", [COSINE, Distance("euclidean"), Distance("squared")])
def test_no_work_is_done_for_rows_that_need_no_gradient(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK_SIZE", 64)
    draw = torch.Generator().manual_seed(0)
    anchors, bank = (torch.randn(n, 8, generator=draw) for n in (70, 9))
    add, skipped = type(measure).add_gradient, set[tuple[bool, bool]]()

    def watched(*args: Any, to_x: Tensor | None, to_y: Tensor | None) -> None:
        skipped.add((to_x is None, to_y is None))
        add(*args, to_x=to_x, to_y=to_y)

    monkeypatch.setattr(type(measure), "add_gradient", watched)

    def gradients(weights: Tensor, *, x: bool, y: bool) -> list[Tensor | None]:
        skipped.clear()
        rows = anchors.clone().requires_grad_(x), bank.clone().requires_grad_(y)
        terms = map_rows(*rows, measure, lambda values, _: values.square().sum(1))
        (terms * weights).sum().backward()
        assert skipped == {(not x, not y)}
        return [tensor.grad for tensor in rows]

    for weights in (torch.rand(70, generator=draw), torch.ones(70)):
        to_x, to_y = gradients(weights, x=True, y=True)
        assert to_x is not None
        assert to_y is not None
        (only_x, _), (_, only_y) = (gradients(weights, x=x, y=not x) for x in (True, False))
        assert only_x is not None
        assert torch.equal(only_x, to_x)
        assert only_y is not None
        assert torch.equal(only_y, to_y)
