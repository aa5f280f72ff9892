"""The evaluation view: how an image is resized, cropped and normalised for a trained encoder."""

from typing import Any

from selfsup.augment.boxes import CenterBoxes
from selfsup.config import Interpolation, ViewsConfig

SMALL = 64
"""Views up to this side, in pixels, get the small stem and the whole image by default."""


def crop_fraction(size: int) -> float:
    """Return the fraction of the shorter side in the centre crop where a model has none of its own.

    224 of 256 pixels, as usual on ImageNet; 1 for sizes up to 64, where the border matters.
    """
    return 1.0 if size <= SMALL else 0.875


def crop_of(views: ViewsConfig) -> float:
    """Return a view's fraction of the shorter side in the centre crop."""
    return views.crop or crop_fraction(views.size)


def center_boxes(images: int, views: ViewsConfig) -> CenterBoxes:
    """Return the boxes of the evaluation view of some images."""
    return CenterBoxes(images, crop_of(views), bool(views.squash))


def evaluation_view(settings: dict[str, Any], size: int) -> ViewsConfig:
    """Translate timm's preprocessing settings into a view of that size.

    The model's own `crop_pct` is kept, but for small images of another size than its own: at 32
    pixels the border matters.
    """
    smooth = ("bicubic", "lanczos")  # lanczos is nearer to bicubic than to bilinear
    kind: Interpolation = "bicubic" if settings.get("interpolation") in smooth else "bilinear"
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    crop = settings.get("crop_pct")
    squash = True if settings.get("crop_mode") == "squash" else None
    own_size = settings.get("input_size", (3, 224, 224))[-1]
    if crop is None or (size <= SMALL and size != own_size) or crop == crop_fraction(size):
        crop = 0.0
    return ViewsConfig(
        size=size, interpolation=kind, mean=mean, std=std, crop=float(crop), squash=squash
    )
