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
from selfsup.losses.contrastive import LOWEST_TEMPERATURE, dcl, dclw, info_nce, nt_xent
from selfsup.losses.symmetric import MIN_TEMPERATURE
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, TwoViews, Views, project_both_views


class SimCLR(Method[TwoViews]):
    """An encoder with a projector of two layers, which is dropped after training."""

    uses_labels = False

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
        """Project both views in one pass. [b, 2, 3, s, s] -> two of [b, dim]."""
        return project_both_views(self.encoder, self.projector, views)

    def negatives(self, batch: int) -> int:
        """All views of the other images; info-nce: one view of each, or the queue."""
        if self.config.loss == "info-nce":
            return self.config.queue or batch - 1
        return 2 * batch - 2

    def loss(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the chosen loss over the global batch."""
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
                queue = self.queue.contents()[0] if self.config.queue else b[:0]
                # while the queue is empty, the negatives are the batch's other keys
                return info_nce(a, b, temperature=temperature, queue=queue if len(queue) else None)

    def after_step(self, embeddings: TwoViews, labels: Tensor | None, info: StepInfo) -> None:
        """Add the second views' embeddings to the queue."""
        self.queue.add(embeddings.second)


def _check(config: SimCLRConfig) -> None:
    require_positive(config, "temperature", "sigma")
    require(config.queue >= 0, f"--method.queue must be 0 or more, not {config.queue}")
    require(
        not config.queue or config.loss == "info-nce",
        f"--method.queue is for info-nce; --method.loss is {config.loss}",
    )
    exact = config.products == "float32"
    lowest = LOWEST_TEMPERATURE if exact else MIN_TEMPERATURE[torch.float32]
    require(
        config.temperature >= lowest or (exact and config.loss != "nt-xent"),
        f"--method.temperature must be {lowest:.5f} or more, not {config.temperature}, with "
        f"--method.loss {config.loss} and --method.products {config.products}",
    )
    require(
        exact or config.loss == "nt-xent",
        f"--method.products bfloat16 is for nt-xent; --method.loss is {config.loss}",
    )
