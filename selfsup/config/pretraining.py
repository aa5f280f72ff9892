"""Settings of pretraining methods that need no negatives."""

from dataclasses import dataclass
from typing import Any, Literal

from selfsup.core.errors import require

Norm = Literal["batch", "layer"]


def require_positive(config: Any, *names: str) -> None:
    """Refuse settings that must be above 0.

    Raises:
        UserError: one is not; by the name of its flag.
    """
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"--method.{name.replace('_', '-')} must be above 0, not {value}")


def require_fraction(config: Any, *names: str, prefix: str = "method") -> None:
    """Refuse settings that must be from 0 to 1.

    Raises:
        UserError: one is not; by the name of its flag.
    """
    for name in names:
        value = getattr(config, name)
        flag = f"--{prefix}.{name.replace('_', '-')}"
        require(0 <= value <= 1, f"{flag} must be from 0 to 1, not {value}")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What stands between the encoder and the loss, and is thrown away after training."""

    hidden: int = 512
    """Width of hidden layers."""
    dim: int = 128
    """Width of a projection."""
    norm: Norm = "batch"
    """Between layers: batch as in the papers, or layer, whose result is the same on any number of
    processes and micro-batches."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A moving average of the student."""

    momentum: float = 0.996
    """Share of the teacher that is kept at each step, at the start."""
    final: float = 1.0
    """The same at the end of the run, reached by half a cosine."""
    buffers: Literal["own", "copied"] = "own"
    """Running batch-norm statistics of the teacher: of the images that it saw itself, as in all the
    papers here, or the student's."""
    export: Literal["student", "teacher"] = "student"
    """Which encoder is looked at on the way and kept."""


@dataclass(frozen=True, kw_only=True)
class BYOLConfig(HeadConfig):
    """BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

    hidden: int = 1024
    """Width of the hidden layers of projector and predictor (4096)."""
    dim: int = 256
    """Width of a projection."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.996)


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig(HeadConfig):
    """SimSiam (Chen & He 2021, https://arxiv.org/abs/2011.10566)."""

    hidden: int = 1024
    """Width of the projector's hidden layers (2048); the predictor's is a quarter of `dim`."""
    dim: int = 1024
    """Width of a projection (2048)."""


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsConfig(HeadConfig):
    """Barlow Twins (Zbontar et al. 2021, https://arxiv.org/abs/2103.03230)."""

    off_diagonal: float = 0.0051
    """Weight of correlations between different dimensions (0.005 in the paper, 0.0051 in its
    code)."""
    scale: float = 0.024
    """Multiplies the loss, as in the paper's code."""
    hidden: int = 1024
    """Width of the projector's two hidden layers (8192)."""
    dim: int = 1024
    """Width of a projection (8192)."""


@dataclass(frozen=True, kw_only=True)
class VICRegConfig(HeadConfig):
    """VICReg (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

    invariance: float = 25.0
    """Weight of the distance of two views."""
    variance: float = 25.0
    """Weight of dimensions whose deviation is below 1."""
    covariance: float = 1.0
    """Weight of squared covariances of different dimensions."""
    hidden: int = 1024
    """Width of the projector's two hidden layers (8192)."""
    dim: int = 1024
    """Width of a projection (8192)."""


@dataclass(frozen=True, kw_only=True)
class SwAVConfig(HeadConfig):
    """SwAV (Caron et al. 2020, https://arxiv.org/abs/2006.09882)."""

    prototypes: int = 512
    """Clusters (3000 for ImageNet)."""
    temperature: float = 0.1
    """Divides the similarities of embeddings and prototypes."""
    epsilon: float = 0.05
    """Smoothness of the codes: at 0 each image has one prototype."""
    rounds: int = 3
    """Of Sinkhorn's algorithm."""
    queue: int = 0
    """Images of earlier batches whose codes are found along (3840 where batches are small)."""
    start: float = 0.15
    """Share of the run after which the queue is used."""
    frozen: float = 0.01
    """Share of the run during which prototypes rest (the first epoch of 100)."""


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

    prototypes: int = 4096
    """Width of the output (65,536 for ImageNet)."""
    hidden: int = 1024
    """Width of the head's two hidden layers (2048), which have no norm."""
    dim: int = 256
    """Width of the head's bottleneck."""
    temperature: float = 0.1
    """Of the student."""
    teacher_start: float = 0.04
    """Temperature of the teacher at the start."""
    teacher_temperature: float = 0.07
    """Temperature of the teacher after its warm-up."""
    warmup: float = 0.1
    """Share of the run over which the teacher's temperature rises (30 epochs of 300)."""
    centre: float = 0.9
    """Share of the centre that is kept at each step."""
    frozen: float = 0.01
    """Share of the run during which the last layer rests (the first epoch of 100)."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.996, export="teacher")


@dataclass(frozen=True, kw_only=True)
class LeJEPAConfig(HeadConfig):
    """LeJEPA (Balestriero & LeCun 2025, https://arxiv.org/abs/2511.08544)."""

    weight: float = 0.05
    """Of the regulariser SIGReg; the rest is that of the prediction (0.01 to 0.1)."""
    slices: int = 256
    """Random directions of each step."""
    hidden: int = 1024
    """Width of the projector's two hidden layers (2048)."""
    dim: int = 64
    """Width of a projection."""


@dataclass(frozen=True, kw_only=True)
class TiCoConfig(HeadConfig):
    """TiCo (Zhu et al. 2022, https://arxiv.org/abs/2206.10698)."""

    beta: float = 0.9
    """Share of the covariance that is kept at each step."""
    rho: float = 8.0
    """Weight of the covariance contrast (8 in the paper's pseudo-code; 20 in lightly)."""
    hidden: int = 1024
    """Width of the projector's hidden layer (4096)."""
    dim: int = 256
    """Width of a projection."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.99)


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(HeadConfig):
    """SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

    loss: Literal["nt-xent", "dcl", "dclw", "info-nce"] = "nt-xent"
    """SimCLR's own; without the positive in the denominator (dcl, with weights: dclw; Yeh et al.
    2022); or one view against the other and a queue of earlier batches (info-nce, as in MoCo but
    without a second encoder)."""
    temperature: float = 0.2
    """Divides cosine similarities; 0.5 in the paper for CIFAR-10, 0.1 for ImageNet."""
    products: Literal["float32", "bfloat16"] = "float32"
    """In which nt-xent multiplies matrices; bfloat16 is faster where processors have it, and
    similarities then have three digits."""
    sigma: float = 0.5
    """Of dclw's weights."""
    queue: int = 0
    """Embeddings of earlier batches that info-nce compares with; 0: the batch alone."""


@dataclass(frozen=True, kw_only=True)
class MoCoV2Config:
    """MoCo v2 (Chen et al. 2020, https://arxiv.org/abs/2003.04297)."""

    temperature: float = 0.2
    """Divides cosine similarities."""
    queue: int = 4096
    """Keys of earlier batches that a query is told from (65,536 for ImageNet's 1.28 million)."""
    hidden: int = 512
    """Width of the projector's hidden layer (2048); it has no norm."""
    dim: int = 128
    """Width of a projection."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.999, final=0.999)


@dataclass(frozen=True, kw_only=True)
class MoCoV3Config(HeadConfig):
    """MoCo v3 (Chen et al. 2021, https://arxiv.org/abs/2104.02057)."""

    temperature: float = 1.0
    """Divides cosine similarities (1.0 for ResNet-50, 0.2 for ViT)."""
    hidden: int = 1024
    """Width of hidden layers (4096)."""
    dim: int = 256
    """Width of a projection."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.99)


@dataclass(frozen=True, kw_only=True)
class NNCLRConfig(HeadConfig):
    """NNCLR (Dwibedi et al. 2021, https://arxiv.org/abs/2104.14548)."""

    temperature: float = 0.1
    """Divides cosine similarities."""
    queue: int = 4096
    """Embeddings of earlier batches among which neighbours are found (98,304 for ImageNet)."""
    hidden: int = 1024
    """Width of hidden layers (2048 in the projector, 4096 in the predictor)."""
    dim: int = 256
    """Width of a projection."""


@dataclass(frozen=True, kw_only=True)
class SupConConfig:
    """Supervised contrastive learning (Khosla et al. 2020, https://arxiv.org/abs/2004.11362)."""

    temperature: float = 0.1
    """Divides cosine similarities."""
    hidden: int = 512
    """Width of the projector's hidden layer (that of the features in the paper); it has no norm."""
    dim: int = 128
    """Width of a projection."""
