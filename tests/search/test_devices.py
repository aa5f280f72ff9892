"""The forms for a GPU stay on the device and give results on the CPU, checked without a GPU.

Fake tensors have a device and a shape but no numbers; an operation on two devices is an error.
"""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from selfsup.search import neighbours
from selfsup.search.gallery import Gallery, Members
from selfsup.search.neighbours import nearest
from selfsup.search.products import products
from selfsup.search.ranks import FEW, MatchRules, _remove, count_not_below


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with FakeTensorMode():
        yield torch.device("cuda")


@pytest.mark.parametrize("exclude_self", [False, True])
def test_neighbours_of_rows_on_a_gpu_are_on_the_cpu(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, exclude_self: bool
) -> None:
    monkeypatch.setattr(neighbours, "BANK_BLOCK", 16)
    monkeypatch.setattr(
        neighbours, "_without_self", lambda block, first: block
    )  # as many as it has
    bank = torch.empty(50, 3, device=gpu)
    queries = bank if exclude_self else torch.empty(20, 3, device=gpu)
    blocks = list(nearest(queries, bank, 5, exclude_self=exclude_self, memory=1))
    assert sum(len(block.indices) for block in blocks) == len(queries)
    for block in blocks:
        assert block.similarity.device.type == block.indices.device.type == "cpu"
        assert block.similarity.dtype == torch.float32
        assert block.indices.shape[1] == 5 + exclude_self


@pytest.mark.parametrize("matches", [3, FEW + 1])
def test_what_is_not_below_is_counted_on_the_device(gpu: torch.device, matches: int) -> None:
    counts = count_not_below(torch.empty(10, 50, device=gpu), torch.empty(10, matches, device=gpu))
    assert (counts.device.type, counts.dtype) == ("cuda", torch.int64)


def test_rules_are_applied_on_the_device(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(groups: torch.Tensor, wanted: torch.Tensor) -> Members:
        """Groups of three; how many there are depends on numbers, which fakes lack."""
        zeros = torch.empty(len(wanted), dtype=torch.int64, device=gpu)
        return Members(torch.empty(len(groups), dtype=torch.int64, device=gpu), zeros, zeros, 3)

    monkeypatch.setattr(Members, "build", build)
    words = torch.empty(20, dtype=torch.int64, device=gpu)
    gallery = Gallery(torch.empty(20, 3, device=gpu), words, words, words)
    rules = MatchRules(gallery, gallery, exclude_self=True)
    places, real = rules.same_label.rows(slice(4, 9))
    assert rules._skipped(places, slice(4, 9)).shape == (5, 3)
    similarity = products(gallery.x[4:9], gallery.x)
    _remove(similarity, places, real)
    assert similarity.device.type == "cuda"
