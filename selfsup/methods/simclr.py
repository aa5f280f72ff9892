"""SimCLR: two views of an image attract, those of other images repel.

Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709.
"""

import torch
from torch import Tensor, nn

from selfsup.config import SimCLRConfig
from selfsup.encoder import Encoder
from selfsup.errors import require
from selfsup.losses.contrastive import dcl, dclw, info_nce, nt_xent
from selfsup.losses.symmetric import LOWEST
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, TwoViews
from selfsup.seeds import Moment


class SimCLR(Method):
    """An encoder with a projector of two layers, thrown away after training."""

    def __init__(self, encoder: Encoder, config: SimCLRConfig) -> None:
        """The projector has a norm after both layers, as the paper's code has."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        _check(config)
        self.queue = Memory(config.queue, config.dim)
        norm = nn.BatchNorm1d if config.norm == "batch" else nn.LayerNorm
        self.projector = nn.Sequential(
            nn.Linear(encoder.dim, config.hidden, bias=False),
            norm(config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.dim, bias=False),
            norm(config.dim),
        )

    def embed(self, views: Tensor) -> TwoViews:
        """Both views through the network at once. [b, 2, 3, s, s] -> two of [b, dim]."""
        assert views.shape[1] == 2, "SimCLR compares two views"
        z = self.projector(self.encoder(views.transpose(0, 1).flatten(0, 1)))  # [2b, dim]
        return TwoViews(*z.chunk(2))

    def loss(self, embeddings: TwoViews, labels: Tensor | None, moment: Moment) -> Tensor:
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

    def after_step(self, embeddings: TwoViews, labels: Tensor | None, moment: Moment) -> None:
        """The second views' embeddings are compared with in later steps."""
        self.queue.add(embeddings.second)


def _check(config: SimCLRConfig) -> None:
    require(config.temperature > 0, f"--method.temperature must be above 0: {config.temperature}")
    require(config.sigma > 0, f"--method.sigma must be above 0, not {config.sigma}")
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
