"""SwAV: each view predicts the prototypes that the other views belong to.

Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882.
"""

import torch
from torch import Tensor, nn

from selfsup.config import SwAVConfig
from selfsup.config.pretraining import require_fraction, require_positive
from selfsup.core.errors import require
from selfsup.core.numerics import normalize
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.losses.clustering import prototypes_used, swav
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import AllViews, Views, project_all_views
from selfsup.methods.prototypes import PrototypeMethod

CODES = 2  # views whose codes are predicted: the large ones


class SwAV(PrototypeMethod[AllViews]):
    """Prototypes are rows of length 1; codes are computed over the global batch."""

    config: SwAVConfig

    def __init__(self, encoder: Encoder, config: SwAVConfig) -> None:
        """A projector of two layers with a norm between them."""
        super().__init__()
        require_positive(config, "temperature", "epsilon", "rounds", "prototypes")
        require_fraction(config, "start", "frozen")
        self.encoder = encoder
        self.config = config
        self.projector = mlp(encoder.dim, config.hidden, config.dim, norm=config.norm)
        self.prototypes = nn.Parameter(normalize(torch.randn(config.prototypes, config.dim)))
        self.queue = Memory(config.queue, CODES * config.dim, start=config.start)

    def embed(self, views: Views) -> AllViews:
        """Embed each size of crops in one pass, then project all of them in one pass.

        Raises:
            UserError: there are not two large views.
        """
        count = views[0].shape[1]
        require(count == CODES, f"SwAV takes codes of {CODES} views; --views.views is {count}")
        return AllViews(project_all_views(self.encoder, self.projector, views))

    def loss(self, embeddings: AllViews, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss over the global batch; a queue adds earlier batches to its codes."""
        c = self.config
        queue = self._queue(info)
        return swav(
            embeddings.z,
            self.prototypes,
            temperature=c.temperature,
            epsilon=c.epsilon,
            rounds=c.rounds,
            codes=CODES,
            queue=queue if queue is not None and len(queue) else None,
        )

    def _queue(self, info: StepInfo) -> Tensor | None:
        if not self.config.queue or info.progress < self.queue.start:
            return None
        return self.queue.contents()[0].view(-1, CODES, self.config.dim)

    @torch.no_grad()
    def after_step(self, embeddings: AllViews, labels: Tensor | None, info: StepInfo) -> None:
        """Normalise the prototypes, and add the large views to the queue."""
        self.prototypes.copy_(normalize(self.prototypes))
        self.queue.add(embeddings.z[:, :CODES].flatten(1))

    @torch.no_grad()
    def signs(
        self, embeddings: AllViews, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Compute collapse signs and the effective number of `prototypes` of the first views."""
        used = prototypes_used(
            embeddings.z[:, 0], self.prototypes, None, temperature=self.config.temperature
        )
        return super().signs(embeddings, labels, info) | {"prototypes": used}
