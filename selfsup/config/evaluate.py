"""Settings of evaluations."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What every evaluation tool has."""

    model: str
    """A run folder, a folder that timm loads, a timm model name, or "pixels"."""
    data: str
    """Labelled images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz, .npy), shards
    (.tar), a .pack, a Hugging Face data set on disk, cifar10, or torchvision:NAME:FOLDER."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a torchvision data set's train or test."""
    labels: str = "label"
    """The manifest's column with the labels."""
    weights: str = ""
    """For a timm model name: a file of weights, or "cached" for pretrained weights that already lie
    on this machine; empty: random weights."""
    encoder_args: str = ""
    """For a timm model name: more arguments for timm.create_model as YAML."""
    size: int | None = None
    """Side of the images in pixels; by default the one the model was trained with."""
    batch: int = 256
    """Images at a time through the network."""
    workers: int | None = None
    """Processes that read images; by default 0 for arrays, else 2."""
    seed: int = 0
    """Of the split, the bootstrap and random weights."""
    resamples: int = 1000
    """Bootstrap samples behind each 95 % interval."""
    out: str = ""
    """The JSON file to write; by default in the run folder, or here for other models."""


@dataclass(frozen=True, kw_only=True)
class KNNConfig(EvaluateConfig):
    """Weighted k-nearest-neighbour classification of frozen features."""

    test: str = ""
    """Other labelled images to classify; empty: each image by all the others."""
    test_split: str = ""
    """Like split, for the images to classify; given alone, it is of the same data."""
    k: int = 20
    """Neighbours that vote (200 in lightly; 10, 20, 100 and 200 in DINO)."""
    temperature: float = 0.1
    """Divides the cosine in a vote's weight exp(cosine / temperature) (0.1 lightly, 0.07 DINO)."""


@dataclass(frozen=True, kw_only=True)
class LinearConfig(EvaluateConfig):
    """Logistic regression on frozen features."""

    test: str = ""
    """Other labelled images to classify; empty: a fifth of each class, kept apart."""
    test_split: str = ""
    """Like split, for the images to classify; given alone, it is of the same data."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluateConfig):
    """Each image searches all the others: Recall@1, 2, 4, 8, R-precision and MAP@R."""

    distance: Literal["cosine", "euclidean"] = "cosine"
    """How neighbours are ranked."""
