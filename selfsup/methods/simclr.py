"""SimCLR: two views of an image attract, those of other images repel.

Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709.
"""

import torch
from torch import Tensor

from selfsup.config import SimCLRConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.contrastive import dcl, dclw, info_nce, nt_xent
from selfsup.losses.symmetric import LOWEST
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, TwoViews, Views, two_at_once


class SimCLR(Method):
    """An encoder with a projector of two layers, thrown away after training."""

    def __init__(self, encoder: Encoder, config: SimCLRConfig) -> None:
        """The projector has a norm after both layers, as the paper's code has."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        _check(config)
        self.queue = Memory(config.queue, config.dim)
        widths = (encoder.dim, config.hidden, config.dim)
        self.projector = mlp(*widths, norm=config.norm, end="norm")

    def embed(self, views: Views) -> TwoViews:
        """Both views through the network at once. [b, 2, 3, s, s] -> two of [b, dim]."""
        return TwoViews(*two_at_once(self.encoder, self.projector, views))

    def negatives(self, batch: int) -> int:
        """The other images' views; info-nce: of one view or the queue."""
        if self.config.loss == "info-nce":
            return self.config.queue or batch - 1
        return 2 * batch - 2

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """The chosen loss over the global batch."""
        a, b, temperature = *embeddings, self.config.temperature
        match self.config.loss:
            case "nt-xent":
                products = None if self.config.products == "float32" else torch.bfloat16
                return nt_xent(a, b, temperature=temperature, products=products)
            case "dcl":
                return dcl(a, b, temperature=temperature)
            case "dclw":
                return dclw(a, b, temperature=temperature, sigma=self.config.sigma)
            case "info-nce":
                queue = self.queue.held()[0] if self.config.queue else b[:0]
                # until there is a queue, the batch's other keys are what a query is told from
                return info_nce(a, b, temperature=temperature, queue=queue if len(queue) else None)

    def after_step(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> None:
        """The second views' embeddings are compared with in later steps."""
        self.queue.add(embeddings.second)


def _check(config: SimCLRConfig) -> None:
    require_positive(config, "temperature", "sigma")
    require(config.queue >= 0, f"--method.queue must be 0 or more, not {config.queue}")
    require(
        not config.queue or config.loss == "info-nce",
        f"--method.queue is for info-nce; --method.loss is {config.loss}",
    )
    exact = config.products == "float32"
    least = LOWEST[torch.float32]
    require(
        exact or (config.loss == "nt-xent" and config.temperature >= least),
        f"--method.products bfloat16 is for nt-xent at a temperature of {least:.4f} or more",
    )
