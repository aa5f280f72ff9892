"""Settings of views."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each channel of ImageNet's images."""

LARGEST_SIDE = 96
"""Of views whose size follows from the images, in pixels: larger ones take a CPU days."""


def size_for(sides: Sequence[int], largest: int = LARGEST_SIDE) -> int:
    """Return the size of views of images with these shorter sides: their median, within limits."""
    return max(2, min(largest, sorted(sides)[len(sides) // 2]))


@dataclass(frozen=True, kw_only=True)
class SecondViewConfig:
    """Settings in which the second view differs from the first; None: the same value."""

    blur: float | None = None
    """Probability of a blur in the second view (BYOL, appendix B: 0.1, and 1.0 in the first)."""
    solarize: float | None = None
    """Probability of inverting values of 128 and more in the second view (BYOL: 0.2, 0 in the
    first)."""


@dataclass(frozen=True, kw_only=True)
class LocalViewsConfig:
    """Additional small crops (multi-crop, Caron et al. 2020), with the same colour changes."""

    views: int = 0
    """Number of local views of each image."""
    size: int | None = None
    """Side in pixels; by default half of `--views.size`."""
    area: tuple[float, float] = (0.05, 0.4)
    """Smallest and largest fraction of the image's area in a local crop, drawn uniformly."""
    blur: float = 0.5
    """Probability of a blur."""
    solarize: float = 0.0
    """Probability of inverting values of 128 and more."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Random views of an image. The defaults are SimCLR's (Chen et al. 2020, appendix A)."""

    size: int = 0
    """Side of a view in pixels; 0: that of --init, or of the images, at most 96."""
    views: int = 2
    """Number of views of each image in a step."""
    area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest fraction of the image's area in a crop, drawn uniformly."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop; its logarithm is drawn uniformly."""
    interpolation: Literal["", "bilinear", "bicubic"] = ""
    """Interpolation for resizing a crop, always antialiased; empty: that of --init, or bicubic, as
    SimCLR's code has it. Lightly has bilinear."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    quarter_turn: float = 0.0
    """Probability of a rotation by 90, 180 or 270 degrees, for images such as microscopy or aerial
    photographs."""
    rotate: float = 0.0
    """Probability of a rotation by any angle; the corners become black."""
    degrees: float = 30.0
    """Largest angle of a rotation, in degrees, in both directions."""
    jitter: float = 0.8
    """Probability of changing brightness, contrast, saturation and hue, in random order."""
    strength: float = 1.0
    """Factor of the four colour changes (SimCLR: 1.0; 0.5 for CIFAR)."""
    brightness: float = 0.8
    """Largest change of brightness: its factor is from 1 - value to 1 + value, at strength 1."""
    contrast: float = 0.8
    """Largest change of contrast: its factor is from 1 - value to 1 + value, at strength 1."""
    saturation: float = 0.8
    """Largest change of saturation: its factor is from 1 - value to 1 + value, at strength 1."""
    hue: float = 0.2
    """Largest shift of the hue in both directions, at strength 1; a value of 1 is a full turn of
    the colour wheel."""
    gain: float = 0.0
    """Largest change of each channel: its factor is from 1 - value to 1 + value, at strength 1. It
    follows the four colour changes; for images whose channels are not red, green and blue."""
    grey: float = 0.2
    """Probability of converting a view to grey."""
    blur: float = 0.5
    """Probability of a Gaussian blur. The kernel's side is a tenth of the view's, made odd."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur in pixels, drawn uniformly."""
    solarize: float = 0.0
    """Probability of inverting values of 128 and more (BYOL)."""
    kornia: str = ""
    """More augmentations: classes of kornia.augmentation as YAML, applied after the steps above,
    such as "{RandomJPEG: {jpeg_quality: [30, 90], p: 0.2}}". They must keep an image's shape."""
    draft: bool = False
    """Decode a JPEG at a half, quarter or eighth of its sides in training, if its crops are still
    twice as large as the views: photographs of many megapixels are read several times faster, and
    pixels differ by about a level of 255."""
    mean: tuple[float, ...] = ()
    """Mean of each channel, subtracted from values in [0, 1]; none: that of --init, or ImageNet's.
    It also sets the number of channels. With 3 values every image is read as RGB. Another number
    needs images with that many channels, and --views.saturation, hue and grey 0."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel, which divides its values; none: as the mean."""
    crop: float = 0.0
    """Fraction of the shorter side in the centre crop of evaluations; 0: that of --init, or 1 for
    views up to 64 pixels and 0.875 (224 of 256) for larger ones."""
    squash: bool | None = None
    """Resize the whole image to a square in evaluations, whatever its shape, before the crop; by
    default as --init, or not."""
    erase: float = 0.0
    """Probability of replacing a rectangle by the mean (Zhong et al. 2017; 0.5 for
    re-identification)."""
    erase_area: tuple[float, float] = (0.02, 0.33)
    """Smallest and largest fraction of the view's area in that rectangle, drawn uniformly."""
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    """Smallest and largest width / height of that rectangle; its logarithm is drawn uniformly."""
    second: SecondViewConfig = SecondViewConfig()
    local: LocalViewsConfig = LocalViewsConfig()

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.mean or IMAGENET[0])

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel: these, or ImageNet's."""
        return self.mean or IMAGENET[0], self.std or IMAGENET[1]

    @property
    def resampling(self) -> Interpolation:
        """The interpolation: this one, or bicubic."""
        return self.interpolation or "bicubic"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in pixels of the views and of local views, if there are any."""
        return tuple(group.size for group in self.by_size())

    def by_size(self) -> "tuple[ViewsConfig, ...]":
        """Split into views of one size: these, and local views if there are any."""
        large = replace(self, local=LocalViewsConfig())
        local = self.local
        if not local.views:
            return (large,)
        small = replace(
            large,
            size=local.size or self.size // 2,
            views=local.views,
            area=local.area,
            blur=local.blur,
            solarize=local.solarize,
            second=SecondViewConfig(),
        )
        return large, small
