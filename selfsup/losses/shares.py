"""The work of a loss shared out among processes that all hold the same rows.

Every process has the embeddings of the whole global batch, so that each could compute the whole
loss, and did: with 32 processes DINO's 65,536 prototypes cost more than the network. Within
`shared_out` a process computes its share of the rows of a comparison, and the results of all are
added up. A loss knows nothing of it: what it calls returns the whole result, on every process.

Example, the sums over j of s_ij of four rows on two processes:

    process 0 computes rows 0 and 1:  (3, 5, 0, 0)
    process 1 computes rows 2 and 3:  (0, 0, 7, 1)
    both have their sum:              (3, 5, 7, 1), and likewise the sum of both gradients
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup.core.distributed import add_up, local_slice, world

WORTH_ON_CPU = 1 << 24  # products a process saves by sharing: a millisecond, for a message of less
WORTH_ON_GPU = 1 << 32


@dataclass(frozen=True)
class Share:
    """Which part of some work is this process's."""

    rank: int = 0
    processes: int = 1

    def rows(self, n: int) -> slice:
        """Return this process's of n rows."""
        return local_slice(n, self.rank, self.processes)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Add the parts of all processes, in place; every process calls it with as many."""
        if self.processes > 1:
            add_up(tensors)


ALONE = Share()
_current: ContextVar[Share] = ContextVar("share", default=ALONE)
_whatever_size: ContextVar[bool] = ContextVar("whatever_size", default=False)


@contextmanager
def whatever_size() -> Iterator[None]:
    """Share out small losses, too: for proofs that sharing changes nothing."""
    token = _whatever_size.set(True)
    try:
        yield
    finally:
        _whatever_size.reset(token)


@contextmanager
def shared_out() -> Iterator[None]:
    """Share out losses among processes that call them in step, with the same rows."""
    token = _current.set(Share(*world()))
    try:
        yield
    finally:
        _current.reset(token)


def share_of(n: int, products: int, device: torch.device) -> Share:
    """Return this process's share of n rows, or all of them where messages would cost more.

    The answer has to be the same on all processes.

    Args:
        n: rows of a comparison.
        products: multiplications of the whole comparison, forward.
        device: where they are computed.
    """
    share = _current.get()
    if share.processes == 1:
        return ALONE
    worth = WORTH_ON_CPU if device.type == "cpu" else WORTH_ON_GPU
    saved = products - products // share.processes
    is_worth_it = saved >= worth or _whatever_size.get()
    return share if n >= share.processes and is_worth_it else ALONE
