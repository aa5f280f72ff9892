"""One training step: the loss sees the whole global batch, on any number of processes.

1. Each process embeds its rows of the batch; all embeddings are gathered, without gradient.
2. Every process has the same loss of all rows, and its gradient with respect to all of them. Large
   losses are shared out: each process computes some rows, and the results are added up.
3. Each process sends the gradient of its own rows backward through its network, times the number of
   processes; DistributedDataParallel then averages over processes, which divides by that number.

Worked example: two processes with one row each, z1 = 3 w and z2 = 5 w at w = 1, and a loss z1 * z2:
    the gathered embeddings are (3, 5), so the gradient at them is (5, 3);
    process 1 sends 2 * 5 backward, which gives dw = 2 * 5 * 3 = 30, process 2 has 2 * 3 * 5 = 30;
    their mean is 30, the derivative of 15 w^2 at w = 1.

With micro-batches, pass one embeds each without a graph, and pass two embeds each again, with the
same random numbers, to send its rows' gradient backward: a micro-batch is one more process.

Source: Gao et al. 2021, https://arxiv.org/abs/2101.06983 (two passes).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from selfsup.augment.apply import apply
from selfsup.augment.draws import Change
from selfsup.config import ViewsConfig
from selfsup.core.distributed import gather_fields, gather_rows, group_of_hosts, world
from selfsup.core.numerics import at_least_float32
from selfsup.core.seeds import StepInfo, seed_for
from selfsup.core.transfers import send
from selfsup.data.loader import Batch
from selfsup.losses.shares import shared_out
from selfsup.methods.method import Embeddings, Method
from selfsup.training.ddp import hidden_from_ddp, leave_equal_buffers_to_processes
from selfsup.training.finite import FiniteCheck

Clip = Callable[[Sequence[nn.Parameter]], None]
HOST_ROOM = 1 << 30  # bytes: 10,000 images of two views of 64 pixels
GPU_SHARE = 32  # of 80 GB, views of 2,000 images: two each, of 224 pixels


class Stepper:
    """Move a method's weights one step at a time, on this process's device."""

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
        recomputes: bool = False,
        settle: int = 0,
        fused: bool = False,
    ) -> None:
        """Prepare the steps of a run.

        Args:
            accelerator: for the device, the precision and the averaging of gradients.
            method: what is trained, in place.
            optimizer: of its parameters.
            views: settings of the views that batches have.
            micro_batch: images of this process at a time; None takes all its images at once.
            seed: of the run.
            total: steps of the run.
            clip: shortens the gradients of parameters, in place.
            changes: custom augmentations, whose draws the batches have.
            recomputes: whether the backward pass runs parts of the encoder again.
            fused: whether the changes of colour of the views are compiled.
            settle: first steps, in which running statistics of the encoder stay as they are.
        """
        self.accelerator = accelerator
        self.method = method
        self.loss_parameters = method.loss_parameters()
        leave_equal_buffers_to_processes(method)
        with hidden_from_ddp(self.loss_parameters):
            averaged = any(p.requires_grad for p in method.parameters())
            self.network = accelerator.prepare_model(method, evaluation_mode=not averaged)
        self.optimizer = accelerator.prepare(optimizer)
        self.hosts = group_of_hosts() if method.uses_labels else None
        self.views = views.by_size()
        self.micro_batch = micro_batch
        self.clip = clip
        self.changes = changes
        self.recomputes = recomputes
        self.settle = settle
        self.fused = fused
        self.seed = seed
        self.total = total
        self.embeddings: Embeddings  # of the last batch, once there was one
        self.labels: Tensor | None = None  # of the global batch, on the host
        self.check: FiniteCheck | None = None  # of the last step
        self.drawn: tuple[int, tuple[Tensor, ...]] = (-1, ())  # a step, and what was drawn for it

    def __call__(self, batch: Batch) -> Tensor:
        """Move the weights by one step, in place, and return the loss before it.

        The weights do not move by a gradient that is not finite. A GPU is not waited for: of a GPU
        that is known one step later, before which no checkpoint is written (`require_finite`).

        Raises:
            DivergedError: the loss or a gradient of this step (of a GPU: of the one before) is not
                finite.
        """
        on_gpu = self.accelerator.device.type != "cpu"
        loss = self.gradient(batch)
        if on_gpu:
            self.require_finite()  # of the step before: the answer came while this one was prepared
        self.check = self._finite_check(loss, batch.step)
        if not on_gpu:
            self.require_finite()
        for parameter in self.method.frozen_parameters(self.info(batch)):
            parameter.grad = None
        if self.clip is not None:
            self.accelerator.unscale_gradients()
            self.clip(list(self.method.parameters()))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _finite_check(self, loss: Tensor, step: int) -> FiniteCheck:
        """A gradient of float16 is left to the scaler, which leaves out the step."""
        gradients = None
        if self.accelerator.scaler is None:
            named = self.method.named_parameters()
            gradients = {name: p.grad for name, p in named if p.grad is not None}
        return FiniteCheck(step, loss, gradients, self.embeddings)

    def require_finite(self) -> None:
        """Refuse the last step if it was not finite: of a GPU, which is waited for.

        Raises:
            DivergedError: it was not.
        """
        if self.check is not None:
            self.check.require()

    def info(self, batch: Batch) -> StepInfo:
        """Return step, total and seed of this batch."""
        return StepInfo(batch.step, self.total, self.seed)

    def gradient(self, batch: Batch) -> Tensor:
        """Add the gradient of this batch to the parameters' `.grad`, and return the loss."""
        labels = self._labels(batch)
        chunks = self._chunks(len(batch.positions))
        at_once = len(chunks) == 1
        kept: dict[int, tuple[Tensor, ...]] = {}
        if at_once:
            local = with_graph = self._embed(batch, 0, chunks)
        else:
            kept = self._views_to_keep(batch, chunks)
            with torch.no_grad(), frozen_running_stats(self.method):
                several = [self._embed(batch, i, chunks, kept) for i in range(len(chunks))]
            local = type(several[0])(*(torch.cat(fields) for fields in zip(*several, strict=True)))
        local = self.method.look_up(local, batch.positions)
        everywhere = gather_fields(local)
        leaves = type(local)(*(at_least_float32(x).requires_grad_() for x in everywhere))
        with shared_out():
            loss = self.method.loss(leaves, labels, self.info(batch))
        gradients = torch.autograd.grad(
            loss, [*leaves, *self.loss_parameters], allow_unused=True, materialize_grads=True
        )
        at_local = [self.local_rows(g, len(batch.positions)) for g in gradients[: len(leaves)]]
        for i, chunk in enumerate(chunks):
            last = i == len(chunks) - 1
            with self._average_gradients_at(last=last):
                outputs = list(with_graph if at_once else self._embed(batch, i, chunks, kept))
                at_outputs = [g[chunk] for g in at_local]
                if last:  # the gradient of the loss's own parameters is complete already
                    outputs += self.loss_parameters
                    at_outputs += gradients[len(leaves) :]
                self._backward(outputs, at_outputs)
        self.embeddings = type(local)(*(leaf.detach() for leaf in leaves))
        self.labels = labels
        return loss.detach()

    def _labels(self, batch: Batch) -> Tensor | None:
        """Gather the labels on the host, before anything of this step waits for a GPU there."""
        if batch.labels is None or not self.method.uses_labels:
            return None
        return gather_rows(batch.labels, group=self.hosts)

    def local_rows(self, gradient: Tensor, rows: int) -> Tensor:
        """Cut the rows of this process out of a gradient of the global batch, times the processes.

        `rows` is the number of rows of each process; DistributedDataParallel divides by the number
        of processes again. On process 1 of 0 and 1, with 2 rows each: (1, 2, 3, 4) -> (6, 8).
        """
        rank, processes = world()
        return gradient[rank * rows : (rank + 1) * rows] * processes

    def warm_up_buckets(self, batch: Batch) -> None:
        """Run two backward passes that change nothing, before the first step of every run.

        Call it at the step where the run starts or goes on, so that a resumed run equals an
        unbroken one bit by bit. Weights, running statistics and gradients are left as they were.

        DistributedDataParallel puts gradients into buckets that are summed together, and after the
        first backward pass sorts them by the order in which gradients come. With four processes the
        order of a sum changes its rounding:
            (1e8 + 1) - 1e8 + 1 is 1 in float32, and (1e8 - 1e8) + 1 + 1 is 2.
        Without this, an unbroken run would have the old order at its first step alone, and a
        resumed one again at the step where it goes on. The second pass is there since the new order
        begins with the forward pass after the first backward pass.
        """
        with restored_buffers(self.method):
            for _ in range(2):
                embedded = self._embed(batch, 0, self._chunks(len(batch.positions)))
                zeros = [torch.zeros_like(at_least_float32(x)) for x in embedded]
                self._backward([*embedded], zeros)
        self.optimizer.zero_grad()

    def try_micro_batch(self, batch: Batch, images: int) -> None:
        """Send the first `images` forward and backward on this process alone; change nothing.

        It raises what full memory raises, if they are too many.
        """
        moved = [p for p in self.method.parameters() if p.requires_grad]
        with restored_buffers(self.method):
            with self.accelerator.autocast():
                embedded = self.method(self.inputs(batch, slice(images)))
            sums = [at_least_float32(x).sum() for x in embedded if x.requires_grad]
            if sums:  # not by backward(), in which processes would wait for each other
                torch.autograd.grad(sums, moved, allow_unused=True)

    def _chunks(self, images: int) -> list[slice]:
        """The micro-batches of this process's images."""
        size = self.micro_batch or images
        return [slice(start, start + size) for start in range(0, images, size)]

    def _views_to_keep(self, batch: Batch, chunks: list[slice]) -> dict[int, tuple[Tensor, ...]]:
        """Make the views of all micro-batches at once for both passes, if there is room for them.

        Views are small beside what the network keeps of them for its backward pass.
        """
        device = self.accelerator.device
        if sum(x.numel() for x in batch.crops) * 4 > room_for_views(device):
            return {}
        self._seed_network(batch, 0, chunks)
        return {i: self.inputs(batch, chunk) for i, chunk in enumerate(chunks)}

    def _seed_network(self, batch: Batch, i: int, chunks: list[slice]) -> None:
        """Give micro-batch i the random state of its place in the global batch."""
        rank, _ = world()
        torch.manual_seed(seed_for(self.seed, batch.step, f"network/{rank * len(chunks) + i}"))

    def _embed(
        self,
        batch: Batch,
        i: int,
        chunks: list[slice],
        kept: Mapping[int, tuple[Tensor, ...]] = MappingProxyType({}),
    ) -> Embeddings:
        """Embed micro-batch i, of views that are `kept` or made here."""
        self._seed_network(batch, i, chunks)
        views = kept[i] if i in kept else self.inputs(batch, chunks[i])
        settling = batch.step < self.settle
        still = frozen_running_stats(self.method.encoder) if settling else nullcontext()
        with self.accelerator.autocast(), still:
            embeddings: Embeddings = self.network(views)
        return embeddings

    def inputs(self, batch: Batch, chunk: slice) -> tuple[Tensor, ...]:
        """Make the views of some local images, and take their rows of what the method draws."""
        dtype, device = next(self.method.parameters()).dtype, self.accelerator.device
        views = []
        for crops, draws, config in zip(batch.crops, batch.draws, self.views, strict=True):
            pixels = send(crops[chunk], device)
            made = apply(pixels, draws.rows(chunk), config, self.changes, fused=self.fused)
            views.append(made.to(dtype))
        return (*views, *(send(x[chunk], device) for x in self._method_draws(batch)))

    def _method_draws(self, batch: Batch) -> tuple[Tensor, ...]:
        """Draw for the global batch, once a step; return the rows of this process."""
        rank, processes = world()
        rows = len(batch.positions)
        if self.drawn[0] != batch.step:
            drawn = self.method.draw(rows * processes, self.views, self.info(batch))
            self.drawn = batch.step, tuple(x[rank * rows : (rank + 1) * rows] for x in drawn)
        return self.drawn[1]

    def _backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Send known gradients of the outputs backward through the network.

        backward() starts from a scalar. The scalar product of outputs and gradients has just these
        gradients: of outputs (3, 5) and gradients (2, -1) it is 3 * 2 + 5 * -1 = 1, and its
        derivative with respect to the outputs is (2, -1). accelerate scales that scalar for
        float16, so the factor is there before gradients are cast to half precision.
        """
        pairs = zip(outputs, gradients, strict=True)
        products = [(at_least_float32(x) * g).sum() for x, g in pairs if x.requires_grad]
        if not products:
            return  # the whole network is frozen, and these are not the loss's own parameters
        # what is computed again must not count twice in running statistics
        twice = restored_buffers(self.method.encoder) if self.recomputes else nullcontext()
        with twice:
            self.accelerator.backward(torch.stack(products).sum())

    def _average_gradients_at(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Average gradients over processes once, at the last micro-batch."""
        return nullcontext() if last else self.accelerator.no_sync(self.network)


def room_for_views(device: torch.device) -> int:
    """Return how many bytes of views may stay between the passes of a step with micro-batches."""
    if device.type != "cuda":
        return HOST_ROOM
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return memory // GPU_SHARE


@contextlib.contextmanager
def restored_buffers(module: nn.Module) -> Iterator[None]:
    """Give a module's buffers back the values that they had before the block."""
    values = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(values[name])


@contextlib.contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Let batch norms use the batch's statistics without updating their running ones."""
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
