"""Whether a step is finite: computed on the device, read when the host has the answer."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from selfsup.core.errors import DivergedError
from selfsup.core.transfers import Arriving
from selfsup.methods.method import Embeddings


class FiniteCheck:
    """The loss of a step, and the largest entry of each of its gradients and embeddings.

    Embeddings count since they go into queues and memories, also where the loss ignores them.
    """

    def __init__(
        self,
        step: int,
        loss: Tensor,
        gradients: Mapping[str, Tensor] | None,
        embeddings: Embeddings,
    ) -> None:
        """Begin to look at a step; None for gradients that are left to a scaler."""
        self.step = step
        self.embeddings = embeddings
        self.names = list(gradients or ())
        tensors = [] if gradients is None else [*gradients.values(), *embeddings]
        largest = torch._foreach_norm(tensors, ord=math.inf) if tensors else ()
        self._numbers = Arriving(torch.stack([loss.detach(), *largest]))

    def broken_gradients(self) -> list[str]:
        """Names of the parameters whose gradient is not finite."""
        finite = self._numbers.wait()[1:].isfinite().tolist()
        return [name for name, good in zip(self.names, finite, strict=False) if not good]

    def require(self) -> None:
        """Refuse a step that is not finite. It is the same on every process, so that all stop.

        Raises:
            DivergedError: the loss, a gradient or an embedding is not finite.
        """
        numbers = self._numbers.wait()
        if numbers.isfinite().all():
            return
        loss = numbers[0]
        what = "gradient is not finite" if loss.isfinite() else f"loss is {loss.item()}"
        raise DivergedError(
            f"the {what} at step {self.step + 1}, so that the run stopped before this step; "
            "weights and checkpoints are those of the steps before. Try a lower --optim.lr, a "
            "longer --optim.warmup or --optim.clip 1"
        )
