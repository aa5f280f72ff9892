"""The contract of a method: what training and evaluation may ask of it.

Shape letters: b local images, n images of the global batch, v views, s side in pixels.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.monitor import collapse_signs
from selfsup.seeds import Moment

Embeddings = Any
"""A NamedTuple of tensors whose dim 0 is the batch; the first is the one to watch for collapse."""


class Method(nn.Module):
    """A network and what it learns from. All that must survive a restart is in its state_dict."""

    encoder: Encoder
    """Images to features: the part worth keeping."""
    loss_lr = 1.0
    """Learning rate of the loss's own parameters, as a multiple of the encoder's."""

    def embed(self, views: Tensor) -> Embeddings:
        """The local images' embeddings. float [b, v, 3, s, s] -> NamedTuple of [b, ...]."""
        raise NotImplementedError

    def loss(self, embeddings: Embeddings, labels: Tensor | None, moment: Moment) -> Tensor:
        """Scalar, from the embeddings [n, ...] and labels [n] of the whole global batch."""
        raise NotImplementedError

    def after_step(self, embeddings: Embeddings, labels: Tensor | None, moment: Moment) -> None:
        """Called once after each optimiser step: a teacher's moving average, a queue."""

    def signs(
        self, embeddings: Embeddings, labels: Tensor | None, moment: Moment
    ) -> dict[str, float]:
        """Figures for the log beside the loss: above all signs of collapse."""
        return collapse_signs(embeddings[0])

    def loss_parameters(self) -> list[nn.Parameter]:
        """Parameters that `loss` uses and `embed` does not (proxies, prototypes).

        The loss is the same on every process, and so is their gradient: nothing is averaged.
        """
        return []

    def forward(self, views: Tensor) -> Embeddings:
        """`embed`, under the name that wrappers of modules call."""
        return self.embed(views)


class TwoViews(NamedTuple):
    """Projections of two views of each image."""

    first: Tensor
    second: Tensor


class OneView(NamedTuple):
    """One embedding of each image."""

    embedding: Tensor


def one_view(encoder: Encoder, views: Tensor) -> OneView:
    """The encoder's embedding of one view of each image. [b, 1, 3, s, s] -> [b, dim]."""
    assert views.shape[1] == 1, "ranking sees one view of each image"
    return OneView(encoder(views[:, 0]))
