"""Settings of pretraining methods.

The name of a method is the first of its settings, so that config.yaml says it. It is no flag
(`Suppress`): the recipe fixes it.
"""

from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Suppress

from selfsup.core.errors import require

Norm = Literal["batch", "layer"]


def require_positive(config: Any, *names: str, prefix: str = "method") -> None:
    """Refuse settings that must be above 0.

    Raises:
        UserError: one is not; by the name of its flag.
    """
    for name in names:
        value = getattr(config, name)
        flag = f"--{prefix}.{name.replace('_', '-')}"
        require(value > 0, f"{flag} must be above 0, not {value}")


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
    """Settings of the projector, which is between the encoder and the loss and dropped later."""

    name: str
    """The method, as its recipe names it."""
    hidden: int = 512
    """Width of hidden layers."""
    dim: int = 128
    """Width of a projection."""
    norm: Norm = "batch"
    """Between layers: batch as in the papers, or layer, whose result is the same with any number of
    processes and micro-batches."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A moving average of the student."""

    momentum: float = 0.996
    """Weight of the old teacher in its moving average, at the start of the run."""
    final: float = 1.0
    """The same at the end of the run; between them is half a cosine."""
    buffers: Literal["own", "copied"] = "own"
    """Running batch-norm statistics of the teacher: of its own inputs, as in all the papers here,
    or copied from the student."""
    export: Literal["student", "teacher"] = "student"
    """Which encoder is evaluated during training and exported."""


@dataclass(frozen=True, kw_only=True)
class BYOLConfig(HeadConfig):
    """BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

    name: Suppress[Literal["byol"]] = "byol"
    hidden: int = 1024
    """Width of the hidden layers of projector and predictor (4096)."""
    dim: int = 256
    """Width of a projection."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.996)


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig(HeadConfig):
    """SimSiam (Chen & He 2021, https://arxiv.org/abs/2011.10566)."""

    name: Suppress[Literal["simsiam"]] = "simsiam"
    hidden: int = 1024
    """Width of the projector's hidden layers (2048); the predictor's is a quarter of `dim`."""
    dim: int = 1024
    """Width of a projection (2048)."""


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsConfig(HeadConfig):
    """Barlow Twins (Zbontar et al. 2021, https://arxiv.org/abs/2103.03230)."""

    name: Suppress[Literal["barlow-twins"]] = "barlow-twins"
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

    name: Suppress[Literal["vicreg"]] = "vicreg"
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

    name: Suppress[Literal["swav"]] = "swav"
    prototypes: int = 512
    """Clusters (3000 for ImageNet)."""
    temperature: float = 0.1
    """Divides the similarities of embeddings and prototypes."""
    epsilon: float = 0.05
    """Smoothness of the codes: at 0 each image has one prototype."""
    rounds: int = 3
    """Iterations of Sinkhorn's algorithm."""
    queue: int = 0
    """Images of earlier batches that take part in the codes (3840 where batches are small)."""
    start: float = 0.15
    """Fraction of the run after which the queue is used."""
    frozen: float = 0.01
    """Fraction of the run during which prototypes do not move (the first epoch of 100)."""


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

    name: Suppress[Literal["dino", "dinov2"]] = "dino"
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
    """Fraction of the run over which the teacher's temperature rises (30 epochs of 300)."""
    centre: float = 0.9
    """Weight of the old centre in its moving average."""
    frozen: float = 0.01
    """Fraction of the run during which the last layer does not move (the first epoch of 100)."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.996, export="teacher")


@dataclass(frozen=True, kw_only=True)
class DINOv2Config(DINOConfig):
    """DINOv2 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193): DINO, iBOT and KoLeo."""

    name: Suppress[Literal["dino", "dinov2"]] = "dinov2"
    heads: Literal["separate", "shared"] = "separate"
    """Whether patches have a head and prototypes of their own, as the paper's large models, or
    share those of the images, as iBOT."""
    masked: float = 0.5
    """Fraction of the large views that are masked."""
    mask: tuple[float, float] = (0.1, 0.5)
    """Smallest and largest fraction of the patches of a masked view, drawn uniformly."""
    patches: float = 1.0
    """Weight of the loss of masked patches (iBOT)."""
    koleo: float = 0.1
    """Weight of the regulariser KoLeo, for each large view."""
    warmup: float = 0.3
    """Fraction of the run over which the teacher's temperature rises (30 epochs of 100)."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.992, export="teacher")


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """MAE (He et al. 2022, https://arxiv.org/abs/2111.06377)."""

    name: Suppress[Literal["mae"]] = "mae"
    masked: float = 0.75
    """Fraction of the patches that are masked."""
    depth: int = 4
    """Transformer blocks of the decoder (8 in the paper; 1 is nearly as good after fine-tuning)."""
    dim: int = 128
    """Width of the decoder (512 beside a ViT-L of 1,024)."""
    heads: int = 4
    """Attention heads of the decoder, which divide its width (16)."""


@dataclass(frozen=True, kw_only=True)
class LeJEPAConfig(HeadConfig):
    """LeJEPA (Balestriero & LeCun 2025, https://arxiv.org/abs/2511.08544)."""

    name: Suppress[Literal["lejepa"]] = "lejepa"
    weight: float = 0.05
    """Of the regulariser SIGReg; the prediction has the remaining weight (0.01 to 0.1)."""
    slices: int = 256
    """Random directions of each step."""
    hidden: int = 1024
    """Width of the projector's two hidden layers (2048)."""
    dim: int = 64
    """Width of a projection."""


@dataclass(frozen=True, kw_only=True)
class TiCoConfig(HeadConfig):
    """TiCo (Zhu et al. 2022, https://arxiv.org/abs/2206.10698)."""

    name: Suppress[Literal["tico"]] = "tico"
    beta: float = 0.9
    """Weight of the old covariance in its moving average."""
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

    name: Suppress[Literal["simclr", "dcl"]] = "simclr"
    loss: Literal["nt-xent", "dcl", "dclw", "info-nce"] = "nt-xent"
    """NT-Xent; without the positive in the denominator (dcl, and dclw with weights; Yeh et al.
    2022); or one view against the other and a queue of earlier batches (info-nce, as in MoCo but
    without a teacher)."""
    temperature: float = 0.2
    """Divides cosine similarities; 0.5 in the paper for CIFAR-10, 0.1 for ImageNet."""
    products: Literal["float32", "bfloat16"] = "float32"
    """Type in which nt-xent multiplies matrices; bfloat16 is faster where processors support it,
    and similarities then have three digits."""
    sigma: float = 0.5
    """Of dclw's weights."""
    queue: int = 0
    """Embeddings of earlier batches that info-nce compares with; 0: the batch alone."""


@dataclass(frozen=True, kw_only=True)
class DCLConfig(SimCLRConfig):
    """DCL (Yeh et al. 2022, https://arxiv.org/abs/2110.06848): SimCLR with another loss."""

    name: Suppress[Literal["dcl"]] = "dcl"
    loss: Literal["nt-xent", "dcl", "dclw", "info-nce"] = "dcl"
    """NT-Xent without the positive in the denominator; the others are those of SimCLR."""
    temperature: float = 0.1
    """Divides cosine similarities; 0.1 in the paper."""


@dataclass(frozen=True, kw_only=True)
class MoCoV2Config:
    """MoCo v2 (Chen et al. 2020, https://arxiv.org/abs/2003.04297)."""

    name: Suppress[Literal["moco-v2"]] = "moco-v2"
    temperature: float = 0.2
    """Divides cosine similarities."""
    queue: int = 4096
    """Keys of earlier batches: negatives (65,536 for ImageNet's 1.28 million images)."""
    hidden: int = 512
    """Width of the projector's hidden layer (2048); it has no norm."""
    dim: int = 128
    """Width of a projection."""
    teacher: TeacherConfig = TeacherConfig(momentum=0.999, final=0.999)


@dataclass(frozen=True, kw_only=True)
class MoCoV3Config(HeadConfig):
    """MoCo v3 (Chen et al. 2021, https://arxiv.org/abs/2104.02057)."""

    name: Suppress[Literal["moco-v3"]] = "moco-v3"
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

    name: Suppress[Literal["nnclr"]] = "nnclr"
    temperature: float = 0.1
    """Divides cosine similarities."""
    queue: int = 4096
    """Embeddings of earlier batches that can be neighbours (98,304 for ImageNet)."""
    hidden: int = 1024
    """Width of hidden layers (2048 in the projector, 4096 in the predictor)."""
    dim: int = 256
    """Width of a projection."""


@dataclass(frozen=True, kw_only=True)
class SupConConfig:
    """Supervised contrastive learning (Khosla et al. 2020, https://arxiv.org/abs/2004.11362)."""

    name: Suppress[Literal["supcon"]] = "supcon"
    temperature: float = 0.1
    """Divides cosine similarities."""
    hidden: int = 512
    """Width of the projector's hidden layer (that of the features in the paper); it has no norm."""
    dim: int = 128
    """Width of a projection."""
