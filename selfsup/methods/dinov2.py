"""DINOv2: DINO on images, iBOT on masked patches, and KoLeo, which spreads images out.

The student sees half of its large views with some patches masked. From what remains it predicts,
as DINO, what the teacher makes of the image's other large views, and, as iBOT, what the teacher,
which sees everything, makes of each masked patch. Both targets are centred (the paper's Sinkhorn
would need all scores of all masked patches at once, 60,000 rows of 65,536 at 1,024 images).

Masks are drawn for the global batch from seed and step, see `Method.draw`. Of the patches only the
masked ones reach the head and are gathered, 256 wide, as many of each view as can be masked: for
1,024 images of 196 patches, two views, 98 rows each, 205 MB of the student and as much of the
teacher.

Shape letters: b local images, v views, t large views, p patches of one, k patches of it that can be
masked, d width of the bottleneck.

Source: Oquab et al. 2023, https://arxiv.org/abs/2304.07193; Zhou et al. 2022,
https://arxiv.org/abs/2111.07832; Sablayrolles et al. 2019, https://arxiv.org/abs/1806.03198.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selfsup.augment.masks import view_masks
from selfsup.config import DINOv2Config, ViewsConfig
from selfsup.core.errors import require
from selfsup.core.seeds import StepInfo
from selfsup.core.transfers import send
from selfsup.encoders.encoder import Encoder
from selfsup.encoders.patch_tokens import (
    encode_patches,
    masked_patches,
    patch_grid,
    require_vit,
    rows_at,
)
from selfsup.losses.clustering import dino, ibot, moving_centre, prototypes_used
from selfsup.losses.entropy import koleo
from selfsup.methods.dino import dino_head, require_settings, teacher_temperature
from selfsup.methods.method import Views, map_views
from selfsup.methods.prototypes import PrototypeMethod
from selfsup.methods.teacher import Teacher


class ImageAndPatchRows(NamedTuple):
    """Outputs of the bottlenecks, before the last layers, and features of the student."""

    student: Tensor
    """[b, v, d] of all views, the large ones first."""
    teacher: Tensor
    """[b, t, d] of the large views."""
    features: Tensor
    """[b, t, dim] of the student's encoder."""
    student_patches: Tensor
    """[b, t, k, d] of the masked patches; where fewer are masked, others fill the rest."""
    teacher_patches: Tensor
    """[b, t, k, d] of the same patches."""
    weights: Tensor
    """[b, t, k]: 1 / number of the view's masked patches, and 0 for a patch that fills up."""


class DINOv2(PrototypeMethod[ImageAndPatchRows]):
    """The last layers belong to the loss, since their outputs are too large to gather.

    Heads are [of images, of patches], or one for both, and so are prototypes [1 or 2, k, d]: the
    first is that of images and the last that of patches, whether shared or not.
    """

    loss_decays = True  # as in the paper's code
    config: DINOv2Config
    centre: Tensor
    teacher_prototypes: Tensor

    def __init__(self, encoder: Encoder, config: DINOv2Config) -> None:
        """Make DINO's head, one more of patches, a mask token, and a teacher of all but it.

        Raises:
            UserError: the encoder is no ViT, or a setting makes no sense.
        """
        super().__init__()
        require_settings(config)
        _require_masks(config)
        require_vit(encoder, "DINOv2")
        self.encoder = encoder
        self.config = config
        widths = [encoder.dim, encoder.model.embed_dim]
        shared = config.heads == "shared"
        require(
            not shared or len(set(widths)) == 1,
            f"--method.heads shared needs features as wide as patches, and they are {widths[0]} "
            f"and {widths[1]} wide; use --method.heads separate",
        )
        projectors, layers = zip(*(dino_head(w, config) for w in widths[shared:]), strict=True)
        self.heads = nn.ModuleList(projectors)
        self.prototypes = nn.Parameter(torch.stack([layer.detach() for layer in layers]))
        self.mask_token = nn.Parameter(torch.zeros(widths[1]))
        self.teacher = Teacher(config.teacher, encoder, *self.heads)
        self.register_buffer("teacher_prototypes", self.prototypes.detach().clone())
        self.register_buffer("centre", torch.zeros(2, config.prototypes))
        self._masked_rows: tuple[StepInfo | None, Tensor] = (None, torch.empty(0))

    @property
    def projector(self) -> nn.Module:
        """The head of images."""
        return self.heads[0]

    @property
    def exported(self) -> Encoder:
        """The teacher's, as in the paper, or the student's; without the mask token."""
        return self.teacher.exported(self.encoder)

    def draw(self, images: int, views: Sequence[ViewsConfig], info: StepInfo) -> tuple[Tensor, ...]:
        """Draw which patches of the large views are masked: bool [images, t, p]."""
        large, c = views[0], self.config
        grid = patch_grid(self.encoder, large.size)
        require(
            min(grid) > 1,
            f"DINOv2 masks patches, and a view of {large.size} pixels has {grid.patches}; "
            "use a larger --views.size or smaller patches",
        )
        shape, g = (images, large.views), info.generator("masks")
        masks = view_masks(shape, grid, g, masked=c.masked, fraction=c.mask)
        self._masked_rows = info, masked_rows(masks.flatten(0, 1), c.mask[1])
        return (masks,)

    def _masked(self, embeddings: ImageAndPatchRows, info: StepInfo) -> Tensor:
        """List the rows of [n, t, k] patches that are masked: from the draws, which the host has.

        Where the step's masks were not drawn here, a GPU is waited for.
        """
        weights = embeddings.weights.flatten()
        drawn_for, rows = self._masked_rows
        return send(rows, weights.device) if drawn_for == info else weights.nonzero()[:, 0]

    def embed(self, views: Views) -> ImageAndPatchRows:
        """Embed each size of crops in one pass; the teacher embeds only the large ones.

        Raises:
            UserError: there is only one view.
        """
        *views_by_size, masks = views
        count = sum(group.shape[1] for group in views_by_size)
        require(count > 1, f"DINOv2 predicts one view from another; --views.views is {count}")
        b, t = views_by_size[0].shape[:2]
        large, masks = views_by_size[0].flatten(0, 1), masks.flatten(0, 1)  # [bt, ...]
        with masked_patches(self.encoder, masks, self.mask_token):
            tokens = encode_patches(self.encoder, large)
        features = tokens.features.unflatten(0, (b, t))
        local = [map_views(self.encoder, group) for group in views_by_size[1:]]
        positions, weights = masked_positions(masks, self.config.mask[1])
        student_patches = self.heads[-1](rows_at(tokens.patches, positions))
        teacher, teacher_patches = self._teach(large, positions)
        return ImageAndPatchRows(
            map_views(self.projector, torch.cat([features, *local], 1)),
            teacher.unflatten(0, (b, t)),
            features,
            student_patches.unflatten(0, (b, t)),
            teacher_patches.unflatten(0, (b, t)),
            weights.unflatten(0, (b, t)),
        )

    @torch.no_grad()
    def _teach(self, large: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the teacher, of whole views: [bt, d] of images and [bt, k, d] of patches."""
        encoder: Any = self.teacher.network[0]
        tokens = encode_patches(encoder, large)
        of_images: Tensor = self.teacher.network[1](tokens.features)
        of_patches: Tensor = self.teacher.network[-1](rows_at(tokens.patches, positions))
        return of_images, of_patches

    def loss(self, embeddings: ImageAndPatchRows, labels: Tensor | None, info: StepInfo) -> Tensor:
        """Compute the loss over the global batch, with the centres of earlier batches."""
        c, rows = self.config, embeddings
        temperatures = {
            "temperature": c.temperature,
            "teacher_temperature": teacher_temperature(c, info),
        }
        of_images = dino(
            rows.student,
            self.prototypes[0],
            rows.teacher,
            self.teacher_prototypes[0],
            self.centre[0],
            **temperatures,
        )
        of_patches = ibot(
            rows.student_patches.flatten(0, 2),
            self.prototypes[-1],
            rows.teacher_patches.flatten(0, 2),
            self.teacher_prototypes[-1],
            self.centre[1],
            rows.weights.detach().flatten() / rows.weights[..., 0].numel(),  # of n * t views
            **temperatures,
            rows=self._masked(rows, info),
        )
        spread = torch.stack([koleo(view) for view in rows.features.unbind(1)]).sum()
        return of_images + c.patches * of_patches + c.koleo * spread

    def _taught(self, embeddings: ImageAndPatchRows, info: StepInfo) -> tuple[Tensor, Tensor]:
        """The teacher's rows [m, d] of large views, and of masked patches."""
        masked = embeddings.teacher_patches.flatten(0, 2)[self._masked(embeddings, info)]
        return embeddings.teacher.flatten(0, 1), masked

    @torch.no_grad()
    def after_step(
        self, embeddings: ImageAndPatchRows, labels: Tensor | None, info: StepInfo
    ) -> None:
        """Update both centres with the batch, by the teacher that embedded it; then the teacher."""
        momentum = self.config.centre
        for i, rows in enumerate(self._taught(embeddings, info)):
            layer, old = self.teacher_prototypes[-i], self.centre[i]
            old.copy_(moving_centre(old, rows[:, None], layer, momentum=momentum))
        self.teacher.update(info, self.encoder, *self.heads)
        self.teacher_prototypes.lerp_(self.prototypes, 1 - self.teacher.momentum(info))

    @torch.no_grad()
    def signs(
        self, embeddings: ImageAndPatchRows, labels: Tensor | None, info: StepInfo
    ) -> dict[str, float]:
        """Compute collapse signs and the effective number of prototypes that the teacher uses."""
        temperature = teacher_temperature(self.config, info)
        used = [
            prototypes_used(
                rows, self.teacher_prototypes[-i], self.centre[i], temperature=temperature
            )
            for i, rows in enumerate(self._taught(embeddings, info))
        ]
        names = {"prototypes": used[0], "patch_prototypes": used[1]}
        return super().signs(embeddings, labels, info) | names


def _require_masks(config: DINOv2Config) -> None:
    low, high = config.mask
    require(0 < config.masked <= 1, f"--method.masked must be above 0, at most 1: {config.masked}")
    require(
        0 < low <= high < 1,
        f"--method.mask must be two fractions between 0 and 1, the smaller first: {low} {high}",
    )
    for name in ("patches", "koleo"):
        value = getattr(config, name)
        require(value >= 0, f"--method.{name} must be 0 or more, not {value}")


def most_masked(masks: Tensor, most: float) -> int:
    """How many patches of a view can be masked, k: the fraction `most` of p. bool [m, p] -> k."""
    return max(1, int(most * masks.shape[1]))


def masked_rows(masks: Tensor, most: float) -> Tensor:
    """List the rows, of [m, k] as `masked_positions` has them, that are masked patches.

    Example:
        >>> masks = torch.tensor([[False, True, False, True], [True, False, False, False]])
        >>> masked_rows(masks, 0.75)  # of views of 3 rows each
        tensor([0, 1, 3])
    """
    places = torch.arange(most_masked(masks, most))
    return (places < masks.sum(1, keepdim=True)).flatten().nonzero()[:, 0]


def masked_positions(masks: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """List the masked patches of each view first, and weigh them. bool [m, p] -> [m, k] twice.

    k is the largest number that can be masked, the fraction `most` of p. Weights are 1 / number of
    masked patches of the view; of the patches that fill up, 0.

    Example:
        >>> positions, weights = masked_positions(torch.tensor([[False, True, False, True]]), 0.75)
        >>> positions.tolist(), weights.tolist()
        ([[1, 3, 0]], [[0.5, 0.5, 0.0]])
    """
    k = most_masked(masks, most)
    positions = masks.byte().argsort(dim=1, descending=True, stable=True)[:, :k]
    counts = masks.sum(1, keepdim=True)
    return positions, masks.gather(1, positions) / counts.clamp(min=1)
