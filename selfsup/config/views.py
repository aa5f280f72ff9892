"""Settings of encoders and views."""

from dataclasses import dataclass, replace
from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The network that is trained and kept."""

    name: str = "resnet18"
    """A timm model name; `timm.list_models()` has over a thousand."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """First layers: timm's own (standard) or for small images (ResNet: 3 x 3, stride 1, no pooling;
    ViT and ConvNeXt: finer patches). auto takes small at 64 pixels and below where there is one."""
    args: str = ""
    """Further arguments of timm.create_model as YAML: "{channels: [32, 64, 128, 256]}"."""
    weights: str = ""
    """Start from this file (.safetensors, or .pth without code in it); empty: random weights."""
    channels_last: bool = True
    """Memory layout of images: with bfloat16 on a CPU 1.6 to 2.2 times faster for ResNets."""
    compile: bool = False
    """Run through torch.compile: 13 to 104 s to start and 0 to 4 % faster where measured (CPU)."""


@dataclass(frozen=True, kw_only=True)
class SecondViewConfig:
    """Settings of the second view that differ from the first; None: the same."""

    blur: float | None = None
    """Probability of a blur (0.1 beside 1.0 in BYOL, appendix B)."""
    solarize: float | None = None
    """Probability of inverting values from 128 up (0.2 beside 0 in BYOL)."""


@dataclass(frozen=True, kw_only=True)
class LocalViewsConfig:
    """Additional small crops (multi-crop, Caron et al. 2020), with the same colour changes."""

    views: int = 0
    """Number of local views of each image."""
    size: int | None = None
    """Side in pixels; by default half of `--views.size`."""
    area: tuple[float, float] = (0.05, 0.4)
    """Fraction of the image's area that a local crop covers, drawn uniformly."""
    blur: float = 0.5
    """Probability of a blur."""
    solarize: float = 0.0
    """Probability of inverting values from 128 up."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Random views of an image. The defaults are SimCLR's (Chen et al. 2020, appendix A)."""

    size: int = 96
    """Side of a view in pixels."""
    views: int = 2
    """Number of views of each image in a step."""
    area: tuple[float, float] = (0.08, 1.0)
    """Fraction of the image's area that a crop covers, drawn uniformly."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a crop, drawn uniformly in its logarithm."""
    interpolation: Interpolation = "bicubic"
    """How a crop is resized; always antialiased (bicubic in SimCLR's code, bilinear in lightly)."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    quarter_turn: float = 0.0
    """Probability of a rotation by 90, 180 or 270 degrees (for images without an up)."""
    rotate: float = 0.0
    """Probability of a rotation by any angle; corners become black."""
    degrees: float = 30.0
    """Largest such angle, to either side."""
    jitter: float = 0.8
    """Probability of the four colour changes, in random order."""
    strength: float = 1.0
    """Scales the four colour changes (SimCLR: 1.0; for CIFAR 0.5)."""
    brightness: float = 0.8
    """Factor from 1 - this to 1 + this, at strength 1."""
    contrast: float = 0.8
    """Factor from 1 - this to 1 + this, at strength 1."""
    saturation: float = 0.8
    """Factor from 1 - this to 1 + this, at strength 1."""
    hue: float = 0.2
    """Shift from -this to this in turns of the colour wheel, at strength 1."""
    gain: float = 0.0
    """Separate factor of each channel, from 1 - this to 1 + this, at strength 1, after the four
    changes: for images whose channels are not red, green and blue."""
    grey: float = 0.2
    """Probability of dropping the colour."""
    blur: float = 0.5
    """Probability of a Gaussian blur; its kernel is a tenth of the side, made odd."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Width of the blur in pixels, drawn uniformly."""
    solarize: float = 0.0
    """Probability of inverting values from 128 up (BYOL)."""
    kornia: str = ""
    """Classes of kornia.augmentation that keep an image's shape, as YAML, after the steps above:
    "{RandomJPEG: {jpeg_quality: [30, 90], p: 0.2}}"."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from each channel, of values in [0, 1] (ImageNet's). As many as channels: 3 reads
    every image as RGB, another number takes images that have it (--views.saturation, hue and grey
    0)."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Divides each channel (ImageNet's)."""
    erase: float = 0.0
    """Probability of erasing a rectangle to the mean (Zhong et al. 2017; 0.5 for
    re-identification)."""
    erase_area: tuple[float, float] = (0.02, 0.33)
    """Fraction of the view's area that is erased, drawn uniformly."""
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    """Width over height of the erased rectangle, drawn uniformly in its logarithm."""
    second: SecondViewConfig = SecondViewConfig()
    local: LocalViewsConfig = LocalViewsConfig()

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.mean)

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
