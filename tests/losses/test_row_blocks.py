"""Blocks of comparisons have the size that suits their device, and cover all rows once."""

from types import SimpleNamespace

import pytest
import torch

from selfsup.losses.row_blocks import block_size, split_rows
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
