"""Distillation: a student learns the features of a frozen teacher, without labels.

Sources: Romero et al. 2015, https://arxiv.org/abs/1412.6550 (features); Koohpayegani et al. 2020,
https://arxiv.org/abs/2010.14713 (CompRess), and Fang et al. 2021, https://arxiv.org/abs/2101.04731
(SEED): similarities.

Shape letters: b local images, n images of the global batch, v views, s side in pixels, t width of
the teacher, e that of the features learned (t, or fewer directions of it), d width of SimCLR's
projection.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.augment.apply import standardize
from selfsup.config import DistilConfig, ViewsConfig
from selfsup.config.pretraining import require_positive
from selfsup.core.errors import require
from selfsup.core.numerics import full_precision
from selfsup.core.seeds import StepInfo
from selfsup.core.transfers import send
from selfsup.encoders.encoder import Encoder
from selfsup.losses.contrastive import nt_xent
from selfsup.losses.distillation import feature_cosine, feature_mse, relational, soft_neighbours
from selfsup.methods.heads import mlp
from selfsup.methods.memory import Memory
from selfsup.methods.method import Method, Views, map_views
from selfsup.methods.signs import collapse_signs, view_signs


class Distilled(NamedTuple):
    """Projections of a student and the features of its teacher."""

    student: Tensor
    """[b, v, e], the large views first."""
    target: Tensor
    """[b, v, e] of the same views, or [b, 1, e] of whole images; [b, 0, e] until `look_up`."""


class DistilledSimCLR(NamedTuple):
    """The same, and projections for SimCLR's loss."""

    student: Tensor
    target: Tensor
    projection: Tensor
    """[b, v, d]."""


class StoredFeatures:
    """Features of the teacher for every image, such as a file that is mapped into memory."""

    directions: Tensor | None = None
    """[t, e], onto which a method projects the features; None: it learns all."""

    def __init__(self, rows: Any, mean: Tensor | None = None) -> None:
        """Take an array [images, t], by the position of the image, and a mean [t] to subtract."""
        self.rows = rows
        self.images, self.dim = rows.shape
        self.mean = torch.zeros(self.dim) if mean is None else mean

    def of_views(self, views: Views) -> None:
        """There are none: the features are of whole images."""

    def of_images(self, positions: Tensor, like: Tensor) -> Tensor:
        """Look up the features of images, on the device of `like`. [b, t].

        A row of zeros, of an image that could not be read, stays one.
        """
        kind = torch.promote_types(like.dtype, torch.float32)
        rows = torch.from_numpy(self.rows[positions.cpu().numpy()])
        rows, mean = (send(x, like.device, kind) for x in (rows, self.mean))
        centred = rows - mean
        return torch.where(rows.any(1, keepdim=True), centred, 0)


class LiveTeacher:
    """A teacher that sees the student's views, at its own size and with its own normalisation.

    It is no Module: a method that has one keeps it out of its parameters and its checkpoints.
    """

    directions: Tensor | None = None
    """[t, e], as of `StoredFeatures`."""

    def __init__(
        self,
        encoder: Encoder,
        views: ViewsConfig,
        *,
        student: ViewsConfig,
        images: int,
        mean: Tensor | None = None,
    ) -> None:
        """Take what a teacher sees.

        Args:
            encoder: the teacher; it is put in evaluation mode, and gets no gradient.
            views: its evaluation view: size, interpolation and normalisation.
            student: the views that it is given, and their normalisation.
            images: number of images.
            mean: [t], subtracted from its features.
        """
        self.encoder = encoder.eval().requires_grad_(False)
        self.mean = torch.zeros(encoder.dim) if mean is None else mean
        self.views = views
        self.student = student
        self.images, self.dim = images, encoder.dim

    @torch.no_grad()
    def of_views(self, views: Views) -> Tensor:
        """Compute the features of all views, the large ones first. -> [b, v, t]."""
        self.encoder.to(views[0].device, views[0].dtype)
        return torch.stack([self._features(view) for group in views for view in group.unbind(1)], 1)

    def of_images(self, positions: Tensor, like: Tensor) -> None:
        """There are none: the features are of views."""

    def _features(self, images: Tensor) -> Tensor:
        """Undo the student's normalisation, resize, and embed. [b, c, s, s] -> [b, t]."""
        student, side, how = self.student, self.views.size, self.views.resampling
        moments = torch.tensor(student.normalization, dtype=images.dtype)
        mean, std = send(moments, images.device)[:, :, None, None]
        pixels = images * std + mean
        if images.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode=how, antialias=True)
        features: Tensor = self.encoder(standardize(pixels.clamp(0, 1), *self.views.normalization))
        return features - send(self.mean, features.device, features.dtype)


class Distil(Method[Distilled | DistilledSimCLR]):
    """A student with a head into the teacher's width, and SimCLR's projector if it has a weight."""

    uses_labels = False
    directions: Tensor | None

    def __init__(
        self, encoder: Encoder, config: DistilConfig, targets: StoredFeatures | LiveTeacher
    ) -> None:
        """Take the student, and what has the teacher's features."""
        super().__init__()
        _check(config, targets.images)
        self.encoder = encoder
        self.config = config
        self.targets = targets
        self.register_buffer("directions", targets.directions)  # a checkpoint keeps them
        width = targets.dim if targets.directions is None else targets.directions.shape[1]
        hidden = (config.hidden,) if config.head == "mlp" else ()
        self.head = mlp(encoder.dim, *hidden, width, norm=config.norm)
        self.queue = Memory(config.queue if config.loss == "queue" else 0, width)
        if config.simclr:
            widths = (encoder.dim, config.hidden, config.dim)
            self.projector = mlp(*widths, norm=config.norm, end="norm")

    def embed(self, views: Views) -> Distilled | DistilledSimCLR:
        """Project all views, and let a live teacher see them.

        Raises:
            UserError: SimCLR's loss has a weight and there is one large view.
        """
        large = views[0].shape[1]
        require(
            not self.config.simclr or large > 1,
            f"--method.simclr compares two views; --views.views is {large}, give 2",
        )
        features = torch.cat([map_views(self.encoder, group) for group in views], 1)
        student = map_views(self.head, features)
        seen = self.targets.of_views(views)
        target = student.detach()[:, :0] if seen is None else self._projected(seen)
        if not self.config.simclr:
            return Distilled(student, target)
        return DistilledSimCLR(student, target, map_views(self.projector, features))

    def look_up(
        self, embeddings: Distilled | DistilledSimCLR, positions: Tensor
    ) -> Distilled | DistilledSimCLR:
        """Add the stored features of whole images."""
        rows = self.targets.of_images(positions, embeddings.student)
        if rows is None:
            return embeddings
        return embeddings._replace(target=self._projected(rows)[:, None])

    def _projected(self, features: Tensor) -> Tensor:
        """Project features of the teacher onto the directions, if there are any. [..., e]."""
        if self.directions is None:
            return features
        with full_precision(features):
            return features @ self.directions.to(features.dtype)

    def loss(
        self, embeddings: Distilled | DistilledSimCLR, labels: Tensor | None, info: StepInfo
    ) -> Tensor:
        """Compute the mean of all views' losses, and add SimCLR's by its weight."""
        loss = self._follow(embeddings.student, embeddings.target)
        if isinstance(embeddings, DistilledSimCLR):
            first, second = embeddings.projection[:, :2].unbind(1)
            contrast = nt_xent(first, second, temperature=self.config.simclr_temperature)
            loss = loss + self.config.simclr * contrast
        return loss

    def _follow(self, student: Tensor, target: Tensor) -> Tensor:
        """Compute the chosen loss of views [n, v, e] against [n, v, e] or [n, 1, e]."""
        t, teacher_t = self.config.temperature, self.config.teacher_temperature
        each = target.expand_as(student)
        rows = student.flatten(0, 1), each.flatten(0, 1)
        match self.config.loss:
            case "cosine":
                return feature_cosine(*rows)
            case "mse":
                return feature_mse(*rows)
            case "relational":
                losses = [
                    relational(*view, temperature=t, teacher_temperature=teacher_t)
                    for view in zip(student.unbind(1), each.unbind(1), strict=True)
                ]
                return torch.stack(losses).mean()
            case "queue":
                anchors = target.flatten(0, 1)
                if self.queue.size:
                    anchors = torch.cat([anchors, self.queue.contents()[0].to(anchors.dtype)])
                return soft_neighbours(*rows, anchors, temperature=t, teacher_temperature=teacher_t)

    def after_step(
        self, embeddings: Distilled | DistilledSimCLR, labels: Tensor | None, info: StepInfo
    ) -> None:
        """Add the teacher's features to the queue."""
        self.queue.add(embeddings.target[:, 0])

    def signs(
        self, embeddings: Distilled | DistilledSimCLR, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Compute collapse signs of the first views, and `agreement`: their cosine to the teacher.

        A single view has no other to compare with, and then there is neither gap nor nearest.
        """
        first, target = embeddings.student[:, 0], embeddings.target[:, 0]
        signs = collapse_signs(first)
        if embeddings.student.shape[1] > 1:
            signs |= view_signs(first, embeddings.student[:, 1])
        return signs | {"agreement": 1 - feature_cosine(first, target).item()}

    def negatives(self, batch: int) -> int:
        """Those of SimCLR, if it has a weight."""
        return 2 * batch - 2 if self.config.simclr else 0


def _check(config: DistilConfig, images: int) -> None:
    require_positive(config, "temperature", "teacher_temperature", "simclr_temperature", "queue")
    require(config.simclr >= 0, f"--method.simclr must be 0 or more, not {config.simclr}")
    require(
        config.loss != "queue" or config.queue <= images,
        f"--method.queue {config.queue} is longer than the data: there are {images} images",
    )
