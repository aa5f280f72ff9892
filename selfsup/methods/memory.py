"""Embeddings of earlier batches, kept in buffers so that they survive a restart."""

import torch
from torch import Tensor, nn

from selfsup.core.errors import require


class Memory(nn.Module):
    """The newest embeddings and their labels, in the order in which they were added.

    Every process adds the rows of the whole global batch, so that all hold the same rows in the
    same order. Sources: He et al. 2020, https://arxiv.org/abs/1911.05722 (a queue of keys); Wang et
    al. 2020, https://arxiv.org/abs/1912.06798 (cross-batch memory).
    """

    rows: Tensor
    labels: Tensor
    added: Tensor

    def __init__(self, size: int, dim: int, *, start: float = 0.0) -> None:
        """Room for `size` embeddings of width `dim`; with 0 it has no buffers and does nothing."""
        super().__init__()
        require(size >= 0, f"a memory holds 0 embeddings or more, not {size}")
        self.size = size
        self.start = start  # share of the run after which a batch is held against it
        if size:
            self.register_buffer("rows", torch.zeros(size, dim))
            self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
            self.register_buffer("added", torch.tensor(0))

    def held(self) -> tuple[Tensor, Tensor]:
        """The embeddings [q, dim] and labels [q] of now; q grows up to the size."""
        assert self.size
        filled = min(self.size, int(self.added))
        return self.rows[:filled], self.labels[:filled]

    def behind(
        self, embeddings: Tensor, labels: Tensor, *, share: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """A batch with the memory behind it, from its start on: [n + q, dim], [n + q]."""
        if not self.size or share < self.start:
            return embeddings, labels
        rows, known = self.held()
        return torch.cat([embeddings, rows.to(embeddings.dtype)]), torch.cat([labels, known])

    @torch.no_grad()
    def add(self, embeddings: Tensor, labels: Tensor | None = None) -> None:
        """Put a batch in the place of the oldest rows; of a larger one its last rows."""
        if not self.size:
            return
        n = len(embeddings)
        place = (self.added + torch.arange(n, device=self.rows.device)) % self.size
        newest = slice(max(0, n - self.size), n)
        self.rows[place[newest]] = embeddings[newest].to(self.rows.dtype)
        if labels is not None:
            self.labels[place[newest]] = labels[newest]
        self.added += n
