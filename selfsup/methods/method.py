"""The contract of a method: what training and evaluation may ask of it.

Shape letters: b local images, n images of the global batch, v views, s side in pixels, d width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.methods.signs import collapse_signs

Views = tuple[Tensor, ...]
"""The views of one size each: float [b, v, 3, s, s]."""
Embeddings = Any
"""A NamedTuple of tensors whose dim 0 is the batch; the first is the one to watch for collapse."""


class Method(nn.Module):
    """A network and what it learns from. All that must survive a restart is in its state_dict."""

    encoder: Encoder
    """Images to features: the part worth keeping."""
    loss_lr = 1.0
    """Learning rate of the loss's own parameters, as a multiple of the encoder's."""
    loss_decays = False
    """Whether they decay; of most only the direction counts."""

    @property
    def exported(self) -> Encoder:
        """The encoder that is evaluated and kept; some methods can give a teacher's."""
        return self.encoder

    def embed(self, views: Views) -> Embeddings:
        """The local images' embeddings: a NamedTuple of [b, ...]."""
        raise NotImplementedError

    def loss(self, embeddings: Embeddings, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Scalar, from the embeddings [n, ...] and labels [n] of the whole global batch."""
        raise NotImplementedError

    def after_step(self, embeddings: Embeddings, labels: Tensor | None, info: StepInfo) -> None:
        """Called once after each optimiser step: a teacher's moving average, a queue."""

    def signs(
        self, embeddings: Embeddings, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Figures for the log beside the loss: above all signs of collapse."""
        z = embeddings[0]
        return collapse_signs(z if z.ndim == 2 else z[:, 0])

    def negatives(self, batch: int) -> int:
        """How many embeddings each one is told from, in a global batch of `batch` images."""
        return 0

    def frozen_parameters(self, info: StepInfo) -> list[nn.Parameter]:
        """Parameters that this step does not move (prototypes at the start of a run)."""
        return []

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """Parameters whose learning rate is the highest all along, whatever the schedule says."""
        return []

    def loss_parameters(self) -> list[nn.Parameter]:
        """Parameters that `loss` uses and `embed` does not (proxies, prototypes).

        The loss is the same on every process, and so is their gradient: nothing is averaged.
        """
        return []

    def forward(self, views: Views) -> Embeddings:
        """`embed`, under the name that wrappers of modules call."""
        return self.embed(views)


class TwoViews(NamedTuple):
    """Projections of two views of each image: [b, d]."""

    first: Tensor
    second: Tensor


class Targets(NamedTuple):
    """Predictions from two views of each image, and a teacher's projections of both: [b, d]."""

    first: Tensor
    second: Tensor
    first_target: Tensor
    second_target: Tensor


def two(views: Views) -> tuple[Tensor, Tensor]:
    """The two views of each image, for methods that compare just two: [b, 3, s, s] each.

    Raises:
        UserError: there are not two of one size.
    """
    count = sum(group.shape[1] for group in views)
    require(len(views) == 1 and count == 2, f"this method compares two views, not {count}")
    first, second = views[0].unbind(1)
    return first, second


def two_at_once(encoder: Encoder, projector: nn.Module, views: Views) -> tuple[Tensor, ...]:
    """Projections of both views, in one pass with one set of batch statistics: [b, d] each."""
    out: Tensor = projector(encoder(torch.cat(two(views))))
    return out.chunk(2)


def two_apart(encoder: Encoder, projector: nn.Module, views: Views) -> tuple[Tensor, ...]:
    """Projections of both views, in two passes, each with its own batch statistics: [b, d] each.

    For views that are made differently.
    """
    return tuple(projector(encoder(view)) for view in two(views))


def together(network: nn.Module, views: Tensor) -> Tensor:
    """All views of one size in one pass. [b, v, 3, s, s] -> [b, v, d]."""
    b, v = views.shape[:2]
    out: Tensor = network(views.transpose(0, 1).flatten(0, 1))  # [vb, d]
    return out.view(v, b, -1).transpose(0, 1)


def all_together(encoder: Encoder, projector: nn.Module, views: Views) -> Tensor:
    """Projections of views of all sizes, the large ones first: [b, v, d].

    Each size in one pass of the encoder, all of them in one of the projector.
    """
    return together(projector, torch.cat([together(encoder, group) for group in views], 1))


class AllViews(NamedTuple):
    """Projections of all views of each image, the large ones first."""

    z: Tensor
    """[b, v, d]."""


class OneView(NamedTuple):
    """One embedding of each image."""

    embedding: Tensor


def one_view(encoder: Encoder, views: Views) -> OneView:
    """The encoder's embedding of one view of each image. [b, 1, 3, s, s] -> [b, dim]."""
    assert [group.shape[1] for group in views] == [1], "ranking sees one view of each image"
    return OneView(encoder(views[0][:, 0]))
