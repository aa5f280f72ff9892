"""The memory behind a batch: order, age, restarts."""

import torch
from torch import Tensor

from selfsup.methods.memory import Memory


def batch(first: int, n: int) -> tuple[Tensor, Tensor]:
    """Rows and labels that say which they are."""
    labels = torch.arange(first, first + n)
    return labels[:, None].float().expand(n, 2), labels


def test_a_memory_grows_and_then_forgets_the_oldest() -> None:
    memory = Memory(5, 2)
    assert memory.contents()[1].tolist() == []
    memory.add(*batch(0, 3))
    assert memory.contents()[1].tolist() == [0, 1, 2]
    memory.add(*batch(3, 3))
    assert sorted(memory.contents()[1].tolist()) == [1, 2, 3, 4, 5]
    memory.add(*batch(6, 3))
    assert sorted(memory.contents()[1].tolist()) == [4, 5, 6, 7, 8]
    rows, labels = memory.contents()
    assert (rows[:, 0] == labels).all()


def test_of_a_batch_larger_than_the_memory_the_last_rows_stay() -> None:
    memory = Memory(3, 2)
    memory.add(*batch(0, 8))
    rows, labels = memory.contents()
    assert sorted(labels.tolist()) == [5, 6, 7]
    assert (rows[:, 0] == labels).all()


def test_a_restored_memory_goes_on_at_the_same_place() -> None:
    memory, restored = Memory(5, 2), Memory(5, 2)
    memory.add(*batch(0, 4))
    restored.load_state_dict(memory.state_dict())
    for one in (memory, restored):
        one.add(*batch(4, 3))
    assert torch.equal(memory.contents()[0], restored.contents()[0])
    assert torch.equal(memory.contents()[1], restored.contents()[1])


def test_the_batch_stands_before_the_memory() -> None:
    memory = Memory(4, 2)
    memory.add(*batch(10, 2))
    rows, labels = memory.append_to(*batch(0, 3))
    assert labels.tolist() == [0, 1, 2, 10, 11]
    assert rows[:, 0].tolist() == [0, 1, 2, 10, 11]


def test_a_memory_keeps_no_graph_and_passes_gradients_to_the_batch_alone() -> None:
    memory = Memory(4, 2)
    x = torch.ones(2, 2, requires_grad=True)
    memory.add(x, torch.tensor([0, 1]))
    assert not memory.rows.requires_grad
    rows, _ = memory.append_to(x, torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(rows.sum(), x)
    assert gradient.tolist() == [[1, 1], [1, 1]]


def test_a_memory_of_size_0_has_no_state_and_changes_nothing() -> None:
    memory = Memory(0, 2)
    x, labels = batch(0, 2)
    memory.add(x, labels)
    assert not memory.state_dict()
    assert memory.append_to(x, labels) == (x, labels)
