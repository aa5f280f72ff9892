"""Settings of pretraining methods."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
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
    hidden: int = 512
    """Width of the projector's hidden layer."""
    dim: int = 128
    """Width of a projection."""
    norm: Literal["batch", "layer"] = "batch"
    """In the projector: batch as in the paper, or layer, whose result is the same on any number of
    processes and micro-batches."""
