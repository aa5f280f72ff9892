"""Settings of distillation: one encoder learns from another, on unlabelled images."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Suppress

from selfsup.config.pretraining import HeadConfig

DistilLoss = Literal["cosine", "mse", "relational", "queue"]


@dataclass(frozen=True, kw_only=True)
class TeacherFeaturesConfig:
    """A frozen teacher, and where its features come from."""

    teacher: str = ""
    """The teacher: a run, a bundle, a folder that timm loads, a file of weights, timm:NAME or
    hf-hub:NAME. It may have any network, and any size and normalisation of its images."""
    targets: Literal["cached", "live"] = "cached"
    """Features of the teacher that the student learns: of each whole image, computed once and read
    from disk (cached), or of the student's own views, computed in each step (live)."""
    cache: str = ""
    """Folder for the features of the teacher, which several runs can use; empty: the run folder."""
    precision: Literal["float16", "float32"] = "float16"
    """Type of the numbers on disk."""
    centre: bool = True
    """Subtract the mean of the teacher's features over the images: where they are all positive, any
    two are similar. With live targets, the mean of 1,024 whole images."""


@dataclass(frozen=True, kw_only=True)
class DistilConfig(TeacherFeaturesConfig, HeadConfig):
    """Distillation from a frozen teacher, see selfsup/losses/distillation.py for the sources."""

    name: Suppress[Literal["distil"]] = "distil"
    loss: DistilLoss = "cosine"
    """What follows the teacher: the student's features themselves (cosine, mse), or how similar an
    image is to the others of the batch (relational) or to a queue of earlier images (queue)."""
    width: int = 256
    """Principal directions of the teacher's features that are learned, where it has more; 0: all.
    They cost a head and a loss of that width."""
    temperature: float = 0.1
    """Divides the student's similarities, of relational and queue (0.04 in CompRess, 0.2 in
    SEED)."""
    teacher_temperature: float = 0.05
    """Divides the teacher's similarities (0.04 in CompRess, 0.01 in SEED)."""
    queue: int = 1024
    """Features of the teacher, of earlier images, that queue compares with (65,536 in SEED); those
    of the batch are compared with too."""
    head: Literal["linear", "mlp"] = "mlp"
    """From the student's features to the teacher's width: one linear layer, or one with a hidden
    layer before it, as in SimReg (Navaneet et al. 2022), which leaves features more freedom."""
    simclr: float = 0.0
    """Weight of SimCLR's loss on the first two views, which is added; 0: no such loss."""
    simclr_temperature: float = 0.2
    """Divides SimCLR's similarities."""
    hidden: int = 512
    """Width of hidden layers, of the head and of SimCLR's projector."""
    dim: int = 128
    """Width of SimCLR's projection; that of the head is the teacher's."""


@dataclass(frozen=True, kw_only=True)
class RankingDistilConfig(TeacherFeaturesConfig):
    """Distillation beside a ranking loss: what the teacher knows is kept while ranking is learnt.

    Without a teacher there is none.
    """

    weight: float = 0.1
    """Of distillation, which is added to the ranking loss: measured beside triplets, whose loss is
    about 0.2. Beside larger losses take more, so that weight x `distil` of the log is about the
    rest of `loss`."""
    loss: Literal["relational", "cosine"] = "relational"
    """What follows the teacher: how similar an image is to the others of the batch (relational), or
    a linear map of the embedding to the teacher's features (cosine)."""
    temperature: float = 0.1
    """Divides the embedding's similarities, of relational."""
    teacher_temperature: float = 0.05
    """Divides the teacher's similarities, of relational."""
