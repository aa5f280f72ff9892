"""A contact sheet: exactly the views of a step of training, and what was drawn for each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.augment.apply import apply
from selfsup.augment.draws import Change, Draws
from selfsup.augment.kornia_steps import kornia_steps
from selfsup.config import ViewsConfig
from selfsup.data.loader import Batch
from selfsup.data.sources import Source
from selfsup.report.page import Section, Verdict, page, paragraph, side_by_side, table
from selfsup.report.pictures import blank, grid, picture, small

MANY_DISJOINT = 0.2
"""Fraction of pairs of views that share nothing, from which on the page says so."""
EXACT = 64
"""Side up to which views are stored without loss; of many larger ones a page would be too big."""
ORDER = "BCSH"  # brightness, contrast, saturation, hue


def contact_sheet(
    source: Source,
    batch: Batch,
    views: ViewsConfig,
    *,
    title: str,
    images: int,
    changes: Sequence[Change] = (),
) -> str:
    """Show the first `images` of a batch: each image, its views, and their draws."""
    ious = overlap(batch.draws[0], _sizes(source, batch))
    rows = rows_of_views(source, batch, views, images=images, changes=changes)
    return page(
        title,
        Section("What does the network see?", [paragraph(ABOUT), side_by_side(*rows)]),
        Section("How much do the first two views of an image overlap?", [_overlaps(ious)]),
        kind="Views",
        verdict=_verdict(batch, ious),
    )


def _verdict(batch: Batch, ious: Tensor | None) -> Verdict:
    """Say what can be counted; whether views suit the images only a person can see."""
    look = (
        "Look at the rows: in every view there must be left what makes the image what it is, and "
        "what does not matter should differ."
    )
    broken = f"{len(batch.bad)} of {len(batch.positions)} images of this step cannot be read."
    sentences = [look, *([broken] if batch.bad else [])]
    if ious is not None:
        disjoint = float((ious == 0).double().mean())
        sentences.append(
            f"The boxes of the first two views overlap by {float(ious.mean()):.0%} on average; "
            f"{disjoint:.0%} of the pairs do not overlap at all."
        )
        if disjoint > MANY_DISJOINT:
            words = "Many pairs of views show different places: --views.area may begin higher"
            return Verdict("mixed", words, sentences)
    if batch.bad:
        return Verdict("mixed", "Some images cannot be read; judge the others by eye", sentences)
    return Verdict("unknown", "To be judged by eye", sentences)


ABOUT = (
    "Each row is an image and its views as the network gets them, before normalisation. "
    "jitter lists brightness (B), contrast (C), saturation (S) and hue (H) in the order in "
    "which they were applied; a box is top, left, height x width in pixels of the image."
)


def rows_of_views(
    source: Source,
    batch: Batch,
    views: ViewsConfig,
    *,
    images: int,
    changes: Sequence[Change] = (),
) -> list[str]:
    """Show the first `images` of a batch as HTML, a row for each."""
    rows = []
    groups = views.by_size()
    views_by_size = [
        _levels(apply(crops[:images], draws.rows(slice(images)), group, changes), group)
        for crops, draws, group in zip(batch.crops, batch.draws, groups, strict=True)
    ]
    sizes = [_size(source, position, batch) for position in batch.positions[:images].tolist()]
    for i, position in enumerate(batch.positions[:images].tolist()):
        pictures = [_whole(source, position, batch.bad.get(position))]
        for shown, draws, group in zip(views_by_size, batch.draws, groups, strict=True):
            for v in range(shown.shape[1]):
                width = max(96, min(224, 2 * group.size))
                caption = describe_draws(draws, group, i, v, sizes[i])
                large = group.size > EXACT
                pictures.append(picture(shown[i, v].numpy(), caption, width=width, jpeg=large))
        rows.append(grid(pictures, "row"))
    return rows


def _sizes(source: Source, batch: Batch) -> list[tuple[int, int] | None]:
    return [_size(source, position, batch) for position in batch.positions.tolist()]


def _levels(x: Tensor, views: ViewsConfig) -> Tensor:
    """Undo the normalisation: uint8 [b, v, s, s, c]."""
    mean, std = (torch.tensor(c)[:, None, None] for c in views.normalization)
    return (x * std + mean).mul(255).round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2)


def _whole(source: Source, position: int, bad: str | None) -> str:
    """Show the image, or why another one stands in for it."""
    name = source.name(position)
    if bad is not None:
        return blank(f"{name}\nthe next good one stands in: {bad}", width=160)
    image = source.pixels(position)
    height, width = image.shape[:2]
    thumbnail = small(image, 112)
    return picture(
        thumbnail, f"{name}\n{height} x {width}", width=160, jpeg=min(thumbnail.shape[:2]) > 64
    )


def _size(source: Source, position: int, batch: Batch) -> tuple[int, int] | None:
    """Height and width of an image; None where it cannot be read."""
    if position in batch.bad:
        return None
    height, width = source.pixels(position).shape[:2]
    return height, width


def describe_draws(
    draws: Draws, views: ViewsConfig, i: int, v: int, size: tuple[int, int] | None
) -> str:
    """Say what was drawn for view v of image i of that size, a line for each change."""
    lines = []
    if size is not None:
        top, left, h, w = draws.boxes.rows(slice(i, i + 1)).resolve(*size)[0, v].tolist()
        lines.append(f"box {top}, {left}, {h} x {w}{', flipped' if draws.flip[i, v] else ''}")
    if draws.quarters[i, v]:
        lines.append(f"turned {90 * int(draws.quarters[i, v])} degrees")
    if draws.rotate[i, v]:
        lines.append(f"rotated {draws.degrees[i, v]:.0f} degrees")
    if draws.jitter[i, v]:
        fields = (draws.brightness, draws.contrast, draws.saturation, draws.hue)
        amounts = [field[i, v].item() for field in fields]
        order = draws.order[i, v].tolist()
        lines.append("jitter " + " ".join(f"{ORDER[k]} {amounts[k]:.2f}" for k in order))
    if draws.grey[i, v]:
        lines.append("grey")
    if draws.blur[i, v]:
        lines.append(f"blur {draws.sigma[i, v]:.2f} px")
    if draws.solarize[i, v]:
        lines.append("solarize")
    shape = views.channels, views.size, views.size
    for step, seeds in zip(kornia_steps(views.kornia), draws.kornia, strict=True):
        if seeds[i, v] >= 0:
            lines.append(step.describe(int(seeds[i, v]), shape))
    if draws.erase[i, v]:
        lines.append("erase")
    return "\n".join(lines) or "unchanged"


def overlap(draws: Draws, sizes: Sequence[tuple[int, int] | None]) -> Tensor | None:
    """Compute the IoU of the boxes of the first two views of each readable image. [k]."""
    if draws.flip.shape[1] < 2:
        return None
    boxes = [
        draws.boxes.rows(slice(i, i + 1)).resolve(*size)[0, :2]
        for i, size in enumerate(sizes)
        if size is not None
    ]
    return box_iou(torch.stack(boxes)) if boxes else None


def box_iou(boxes: Tensor) -> Tensor:
    """Compute the intersection over union of pairs of boxes: [k, 2, 4] -> [k]."""
    low, size = boxes[..., :2], boxes[..., 2:]
    inside = torch.minimum(*(low + size).unbind(1)) - torch.maximum(*low.unbind(1))
    both = inside.clamp(min=0).prod(-1).double()
    return both / (size.prod(-1).sum(1) - both)


def _overlaps(ious: Tensor | None) -> str:
    if ious is None:
        return paragraph("There is one view of each image.")
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64)
    quantiles = [f"{q:.2f}" for q in ious.quantile(levels).tolist()]
    disjoint = f"{(ious == 0).double().mean():.1%}"
    return table(
        ["images", "no overlap", "10 %", "25 %", "half have less", "75 %", "90 %", "mean"],
        [[len(ious), disjoint, *quantiles, f"{ious.mean():.2f}"]],
    ) + paragraph(
        "Intersection over union of the two boxes: 0 is disjoint, 1 the same box. Pairs without "
        "overlap teach that regions of one image belong to each other; on images of many objects, "
        "many such pairs teach noise."
    )
