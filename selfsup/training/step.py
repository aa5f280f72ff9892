"""One training step: the loss sees the whole global batch, whatever held it.

Each process, and within it each micro-batch, embeds its share. The embeddings of all are gathered
without gradient into leaves; the loss runs on them as if there were one process; the gradient at
the local rows, times the number of processes (whose gradients are then averaged), goes backward
through the local network. With micro-batches the first pass keeps no graph, and a second pass
embeds each again, with the same random state, to send its rows' gradient backward.

Sources: Gao et al. 2021, https://arxiv.org/abs/2101.06983 (two passes).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from selfsup.augment.apply import apply
from selfsup.augment.draws import Change
from selfsup.config import ViewsConfig
from selfsup.core.distributed import gather_rows, world
from selfsup.core.numerics import at_least_float32
from selfsup.core.seeds import StepInfo, seed_for
from selfsup.data.loader import Batch
from selfsup.methods.method import Embeddings, Method

Clip = Callable[[Sequence[nn.Parameter]], None]


class Stepper:
    """A method and its optimiser on this process's device, one step at a time."""

    def __init__(
        self,
        accelerator: Accelerator,
        method: Method,
        optimizer: torch.optim.Optimizer,
        *,
        views: ViewsConfig,
        micro_batch: int | None,
        seed: int,
        total: int,
        clip: Clip | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        """A step of a run of `total` steps.

        `micro_batch` is in images of this process; None takes its whole share at once. `clip`
        shortens the gradients of parameters in place; `changes` are views' own.
        """
        self.accelerator = accelerator
        self.method = method
        self.loss_parameters = method.loss_parameters()
        with hidden_from_ddp(self.loss_parameters):
            self.network, self.optimizer = accelerator.prepare(method, optimizer)
        self.views = views.by_size()
        self.micro_batch = micro_batch
        self.clip = clip
        self.changes = changes
        self.seed = seed
        self.total = total
        self.embeddings: Embeddings  # of the last batch, once there was one
        self.labels: Tensor | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Move the weights by one step, in place; the loss before it."""
        loss = self.gradient(batch)
        for parameter in self.method.frozen_parameters(self.info(batch)):
            parameter.grad = None
        if self.clip is not None:
            self.accelerator.unscale_gradients()
            self.clip(list(self.method.parameters()))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def info(self, batch: Batch) -> StepInfo:
        """Where the run is at this batch."""
        return StepInfo(batch.step, self.total, self.seed)

    def gradient(self, batch: Batch) -> Tensor:
        """Add the gradient of this batch to the parameters' `.grad`; the loss."""
        parts = self._cut(len(batch.positions))
        at_once = len(parts) == 1
        if at_once:
            local = whole = self._embed(batch, 0, parts)
        else:
            with torch.no_grad(), frozen_running_stats(self.method):
                several = [self._embed(batch, i, parts) for i in range(len(parts))]
            local = type(several[0])(*(torch.cat(fields) for fields in zip(*several, strict=True)))
        leaves = type(local)(*(at_least_float32(gather_rows(x)).requires_grad_() for x in local))
        labels = None
        if batch.labels is not None:
            labels = gather_rows(batch.labels.to(self.accelerator.device))
        loss = self.method.loss(leaves, labels, self.info(batch))
        gradients = torch.autograd.grad(
            loss, [*leaves, *self.loss_parameters], allow_unused=True, materialize_grads=True
        )
        own = [self.local_rows(g, len(batch.positions)) for g in gradients[: len(leaves)]]
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with self._only_sync_at(last=last):
                embedded = whole if at_once else self._embed(batch, i, parts)
                ends, found = list(embedded), [g[part] for g in own]
                if last:  # the gradient of the loss's own parameters is whole already
                    ends, found = (
                        [*ends, *self.loss_parameters],
                        [*found, *gradients[len(leaves) :]],
                    )
                self._backward(ends, found)
        self.embeddings = type(local)(*(leaf.detach() for leaf in leaves))
        self.labels = labels
        return loss.detach()

    def local_rows(self, gradient: Tensor, rows: int) -> Tensor:
        """This process's share of a gradient of all rows, for the mean over processes."""
        rank, processes = world()
        return gradient[rank * rows : (rank + 1) * rows] * processes

    def warm_up_buckets(self, batch: Batch) -> None:
        """Two backward passes whose gradient is zero, leaving nothing behind.

        DistributedDataParallel orders its buckets anew after the first backward pass, and with
        four processes sums change with the order. After this, a resumed run adds in the order of
        one that was never interrupted.
        """
        buffers = {name: buffer.clone() for name, buffer in self.method.named_buffers()}
        for _ in range(2):
            parts = self._cut(len(batch.positions))
            embedded = self._embed(batch, 0, parts)
            self._backward([*embedded], [torch.zeros_like(at_least_float32(x)) for x in embedded])
        for name, buffer in self.method.named_buffers():
            buffer.copy_(buffers[name])
        self.optimizer.zero_grad()

    def _cut(self, images: int) -> list[slice]:
        size = self.micro_batch or images
        return [slice(start, start + size) for start in range(0, images, size)]

    def _embed(self, batch: Batch, i: int, parts: list[slice]) -> Embeddings:
        """Embed micro-batch i as the virtual process it is, with random numbers of its own."""
        rank, _ = world()
        torch.manual_seed(seed_for(self.seed, batch.step, f"network/{rank * len(parts) + i}"))
        dtype = next(self.method.parameters()).dtype
        views = []
        for crops, draws, config in zip(batch.crops, batch.draws, self.views, strict=True):
            own = crops[parts[i]].to(self.accelerator.device, non_blocking=True)
            views.append(apply(own, draws.rows(parts[i]), config, self.changes).to(dtype))
        with self.accelerator.autocast():
            embeddings: Embeddings = self.network(tuple(views))
        return embeddings

    def _backward(self, ends: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Send gradients into embeddings backward, as the gradient of a scalar product with them.

        A scalar is what accelerate scales for float16; the factor reaches the embeddings before
        they are cast to half precision.
        """
        pairs = zip(ends, gradients, strict=True)
        products = [(at_least_float32(x) * g).sum() for x, g in pairs if x.requires_grad]
        self.accelerator.backward(torch.stack(products).sum())

    def _only_sync_at(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Processes average their gradients once, at the last micro-batch."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.network)


@contextlib.contextmanager
def hidden_from_ddp(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """A wrapper made meanwhile does not wait for these parameters' gradients to average them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics without moving their running ones."""
    norms = [
        m
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
