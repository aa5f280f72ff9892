"""Settings of pretraining methods that tell images apart."""

from dataclasses import dataclass
from typing import Literal

from selfsup.config.heads import HeadConfig, TeacherConfig


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
