"""Two ways to train on several processes that are wrong, with the right value of the loss.

Run by the certificate in the place of the right one: `wrong.py FILE METHODS...`, with the way in
the environment as WRONG.
"""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from selfsup.core.distributed import gather_rows, world
from selfsup.data.loader import Batch
from selfsup.doctor.certificate import work
from selfsup.methods.simclr import SimCLR
from selfsup.training.step import Stepper


class NoFactor(Stepper):
    """The whole loss on each process, whose own rows alone have a gradient: too small by theirs."""

    def local_rows(self, gradient: Tensor, rows: int) -> Tensor:
        rank, _ = world()
        return gradient[rank * rows : (rank + 1) * rows]


class NoGradient(Stepper):
    """The mean over a process's own anchors, against the gathered rows without their gradient."""

    def gradient(self, batch: Batch) -> Tensor:
        rows = len(batch.positions)
        local = self._embed(batch, 0, [slice(0, rows)])
        rank, processes = world()
        gathered = [gather_rows(x) for x in local]
        mixed = [
            torch.cat([x if i == rank else part for i, part in enumerate(whole.split(rows))])
            for x, whole in zip(local, gathered, strict=True)
        ]
        assert isinstance(self.method, SimCLR)
        z = torch.nn.functional.normalize(torch.cat(mixed), dim=1)
        n = rows * processes
        logits = (z @ z.T / self.method.config.temperature).fill_diagonal_(-torch.inf)
        each = torch.nn.functional.cross_entropy(
            logits, torch.arange(2 * n).roll(n), reduction="none"
        )
        own = torch.cat([part.split(rows)[rank] for part in each.split(n)])
        self.accelerator.backward(own.mean())
        self.embeddings, self.labels = type(local)(*gathered), None
        return each.mean().detach()


if __name__ == "__main__":
    wrong: dict[str, type[Stepper]] = {"factor": NoFactor, "gradient": NoGradient}
    work(Path(sys.argv[1]), sys.argv[2:], wrong[os.environ["WRONG"]])
