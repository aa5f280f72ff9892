"""Settings of the encoder, and of the weights that it starts from."""

from dataclasses import dataclass
from typing import Literal

Format = Literal[
    "",
    "timm",
    "torchvision",
    "lightly",
    "solo",
    "moco",
    "dino",
    "vissl",
    "mmselfsup",
    "efficientnet",
    "authors",
]
Pooling = Literal["", "native", "cls", "mean", "cls+mean"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The network that is trained and exported."""

    name: str = ""
    """Name of a timm model, by default that of --init, or resnet18; `timm.list_models()` lists more
    than a thousand."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """First layers: those of timm (standard), or layers for small images (small). The small stem of
    a ResNet is a 3 x 3 convolution with stride 1, without pooling; that of a ViT or ConvNeXt has
    smaller patches. "auto" is that of --init; without, it is small for images up to 64 pixels, if
    the model has such a stem."""
    args: str = ""
    """More arguments of timm.create_model as YAML: "{channels: [32, 64, 128, 256]}". Another
    patch_size than that of --init resamples its patch embedding."""
    pooling: Pooling = ""
    """What a ViT makes its features of: the class token (cls), the mean of patches (mean), both
    (cls+mean), or what timm has for it (native); empty: what its authors evaluate."""
    channels_last: bool = True
    """Use the channels-last memory layout for images. With bfloat16 on a CPU it makes ResNets 1.6
    to 2.2 times faster."""
    compile: bool = False
    """Use torch.compile, for the heads that training puts on the encoder too, and on a GPU for the
    colours of the views. Measured on a CPU: 13 to 104 s longer to start, 0 to 4 % faster steps."""


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The weights to start from."""

    init: str = ""
    """Weights to start from: a run, a bundle, a folder that timm loads, a file of any project in
    --format, or published ones: timm:NAME or hf-hub:NAME (downloaded if this machine has them
    not). They bring size, normalisation and pooling, where these are not given. Empty: random."""
    format: Format = ""
    """Project that wrote a file of --init; by default it is found by the names of its tensors.
    "authors" are names that timm has a converter for: CLIP, SigLIP, DINOv2, DINOv3, BEiT..."""
    moving_average: bool = False
    """Use the moving average (EMA, teacher) in a file of --init, not the trained network."""
    partial: bool = False
    """Start although less than 90 % of the encoder's tensors are in --init; the rest is random."""
