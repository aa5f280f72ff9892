"""The contract of a method: what training and evaluation call.

Shape letters: b local images, n images of the global batch, v views, s side in pixels, d width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar  # the standard one has no default before Python 3.13

from selfsup.config import ViewsConfig
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.methods.health import Remedies
from selfsup.methods.signs import collapse_signs, view_signs

Views = tuple[Tensor, ...]
"""The views of one size each: float [b, v, 3, s, s]; behind them what the method draws itself."""


class Embeddings(Protocol):
    """A NamedTuple of tensors whose dim 0 is the batch; the first is watched for collapse."""

    def __init__(self, *tensors: Tensor) -> None:
        """A tensor for each field."""

    def __iter__(self) -> Iterator[Tensor]:
        """The tensors in the order of the fields."""

    def __len__(self) -> int:
        """Number of fields."""

    def __getitem__(self, index: int, /) -> Tensor:
        """The tensor of a field by position."""

    @property
    def _fields(self) -> tuple[str, ...]:
        """Names of the fields."""


E = TypeVar("E", bound=Embeddings, default=Any)


class Method(nn.Module, Generic[E]):
    """A network and how it learns. All that must survive a restart is in its state_dict.

    `class SimCLR(Method[TwoViews])` embeds into `TwoViews`. Code that trains any method writes
    `Method`, and passes the embeddings on without reading them.
    """

    encoder: Encoder
    """Images to features: what is kept after training."""
    loss_lr = 1.0
    """Learning rate of the loss's own parameters, as a multiple of the encoder's."""
    compares_networks = False
    """Whether the first two views that `embed` returns come from two networks, a student and its
    teacher: how near they are says how far the teacher is behind, and nothing of collapse."""
    uses_labels = True
    """Whether `loss`, `after_step` or `signs` look at labels; else processes need not gather them,
    and all three get None."""
    loss_decays = False
    """Whether they have weight decay; of most only the direction counts."""

    @property
    def exported(self) -> Encoder:
        """The encoder that is evaluated and kept; some methods can give a teacher's."""
        return self.encoder

    def draw(self, images: int, views: Sequence[ViewsConfig], info: StepInfo) -> tuple[Tensor, ...]:
        """Draw what `embed` needs at random beside the views, such as masks: [images, ...] each.

        Drawn on the CPU for the global batch, from `info.generator` alone, so that any number of
        processes and micro-batches sees the same. `embed` gets its rows behind the views.

        Args:
            images: of the global batch.
            views: settings of the views of each size.
            info: of this step.
        """
        return ()

    def embed(self, views: Views) -> E:
        """Embed the local images: a NamedTuple of [b, ...]."""
        raise NotImplementedError

    def look_up(self, embeddings: E, positions: Tensor) -> E:
        """Fill in fields that images have beside their views, such as stored features.

        Called once a step, before the rows of all processes are gathered, with the positions [b] of
        the local images in the data. These fields get no gradient.
        """
        return embeddings

    def loss(self, embeddings: E, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the scalar loss of the whole global batch, [n, ...] with labels [n]."""
        raise NotImplementedError

    def after_step(self, embeddings: E, labels: Tensor | None, info: StepInfo) -> None:
        """Update a teacher, a queue or a centre. Called once after each optimiser step."""

    def signs(self, embeddings: E, labels: Tensor | None, info: StepInfo) -> dict[str, float]:
        """Compute figures for the log beside the loss, above all signs of collapse.

        The first two views of an image are compared, if they come from one network: of a tensor
        [b, v, d] its first two columns, of several [b, d] the first two.
        """
        z = embeddings[0]
        first, second = (z[:, 0], z[:, 1]) if z.ndim == 3 else (z, embeddings[1])
        of_views = {} if self.compares_networks else view_signs(first, second)
        return collapse_signs(first) | of_views

    def relative_loss(self, embeddings: E, labels: Tensor | None, info: StepInfo) -> float:
        """Return the loss as a fraction of its value if all embeddings were equal."""
        equal = type(embeddings)(*(x[:1].expand_as(x) for x in embeddings))
        loss, flat = (self.loss(rows, labels, info).item() for rows in (embeddings, equal))
        return loss / flat if flat > 0 else 0.0

    def remedies(self, info: StepInfo) -> Remedies:
        """Return the settings that a run in trouble may change, beside the optimiser's."""
        return Remedies()

    def negatives(self, batch: int) -> int:
        """Number of negatives of each embedding in a global batch of `batch` images."""
        return 0

    def frozen_parameters(self, info: StepInfo) -> list[nn.Parameter]:
        """Parameters that this step does not move (prototypes at the start of a run)."""
        return []

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """Parameters whose learning rate stays at its peak, whatever the schedule says."""
        return []

    def loss_parameters(self) -> list[nn.Parameter]:
        """Parameters that `loss` uses and `embed` does not (proxies, prototypes).

        The loss is the same on every process, and so is their gradient: nothing is averaged.
        """
        return []

    def forward(self, views: Views) -> E:
        """Call `embed`, under the name that wrappers of modules call."""
        return self.embed(views)


class OneView(NamedTuple):
    """One embedding of each image: [b, d]."""

    embedding: Tensor


class TwoViews(NamedTuple):
    """Projections of two views of each image: [b, d]."""

    first: Tensor
    second: Tensor


class Predictions(NamedTuple):
    """Predictions from two views of each image, and the targets of both: [b, d]."""

    first: Tensor
    second: Tensor
    first_target: Tensor
    second_target: Tensor


class AllViews(NamedTuple):
    """Projections of all views of each image, the large ones first."""

    z: Tensor
    """[b, v, d]."""


def two_views(views: Views) -> tuple[Tensor, Tensor]:
    """Split the views of methods that compare exactly two: [b, 3, s, s] each.

    Raises:
        UserError: there are not two of one size.
    """
    count = sum(group.shape[1] for group in views)
    require(len(views) == 1 and count == 2, f"this method compares two views, not {count}")
    first, second = views[0].unbind(1)
    return first, second


def project_both_views(encoder: Encoder, projector: nn.Module, views: Views) -> TwoViews:
    """Project both views in one pass, with one set of batch statistics: [b, d] each."""
    first, second = projector(encoder(torch.cat(two_views(views)))).chunk(2)
    return TwoViews(first, second)


def project_views_separately(encoder: Encoder, projector: nn.Module, views: Views) -> TwoViews:
    """Project each view in its own pass, with its own batch statistics: [b, d] each.

    For views that have different augmentations.
    """
    first, second = (projector(encoder(view)) for view in two_views(views))
    return TwoViews(first, second)


def map_views(network: nn.Module, views: Tensor) -> Tensor:
    """Apply a network to all views of one size in one pass. [b, v, 3, s, s] -> [b, v, d]."""
    b, v = views.shape[:2]
    out: Tensor = network(views.transpose(0, 1).flatten(0, 1))  # [vb, d]
    return out.view(v, b, -1).transpose(0, 1)


def project_all_views(encoder: Encoder, projector: nn.Module, views: Views) -> Tensor:
    """Project views of all sizes, the large ones first: [b, v, d].

    Each size in one pass of the encoder, all of them in one pass of the projector.
    """
    features = torch.cat([map_views(encoder, group) for group in views], 1)
    return map_views(projector, features)


def embed_one_view(encoder: Encoder, views: Views) -> OneView:
    """Embed the only view of each image. [b, 1, 3, s, s] -> [b, dim]."""
    assert [group.shape[1] for group in views] == [1], "ranking embeds one view of each image"
    return OneView(encoder(views[0][:, 0]))
