"""Embeddings of earlier batches, in buffers, so that they survive a restart."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.core.errors import require
from selfsup.core.transfers import send


class Memory(nn.Module):
    """The newest embeddings and their labels; once it is full, the newest replace the oldest.

    Every process adds the rows of the whole global batch, so that all have the same rows in the
    same order. Sources: He et al. 2020, https://arxiv.org/abs/1911.05722 (a queue of keys); Wang et
    al. 2020, https://arxiv.org/abs/1912.06798 (cross-batch memory).

    Labels and counter stay on the host wherever the rows are moved: a step decides by them what it
    computes, and would wait for a GPU that had them.
    """

    rows: Tensor
    labels: Tensor
    added: Tensor

    def __init__(self, size: int, dim: int, *, start: float = 0.0) -> None:
        """Room for `size` embeddings of width `dim`; size 0 has no buffers and does nothing.

        `start` is the progress of the run, 0 to 1, from which `append_to` uses the rows.
        """
        super().__init__()
        require(size >= 0, f"a memory holds 0 embeddings or more, not {size}")
        self.size = size
        self.start = start
        if size:
            self.register_buffer("rows", torch.zeros(size, dim))
            self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
            self.register_buffer("added", torch.tensor(0))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move the rows alone."""
        host = {name: self._buffers[name] for name in ("labels", "added") if self.size}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers.update(host)
        return self

    def contents(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings [q, dim] and labels [q]; q grows up to the size."""
        assert self.size
        filled = min(self.size, int(self.added))
        return self.rows[:filled], self.labels[:filled]

    def append_to(
        self, embeddings: Tensor, labels: Tensor, *, progress: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return the batch, followed by the memory's rows once the run has reached `start`.

        `progress` is how much of the run is done, from 0 to 1. The memory does not change; `add`
        stores a batch. [n, dim], [n] -> [n + q, dim], [n + q] with q rows in the memory; before
        `start`, or with size 0, the batch alone.
        """
        if not self.size or progress < self.start:
            return embeddings, labels
        rows, row_labels = self.contents()
        labels = torch.cat([labels.cpu(), row_labels])
        return torch.cat([embeddings, rows.to(embeddings.dtype)]), labels

    @torch.no_grad()
    def add(self, embeddings: Tensor, labels: Tensor | None = None) -> None:
        """Replace the oldest rows by a batch; of a batch larger than the memory, by its last rows.

        Example of size 4, after six rows a to f: [e f c d]. A batch (g, h) goes to places 6 % 4 = 2
        and 7 % 4 = 3: [e f g h].
        """
        if not self.size:
            return
        n = len(embeddings)
        newest = slice(max(0, n - self.size), n)
        place = ((self.added + torch.arange(n)) % self.size)[newest]
        self.rows[send(place, self.rows.device)] = embeddings[newest].to(self.rows.dtype)
        if labels is not None:
            self.labels[place] = labels[newest].cpu()
        self.added += n
