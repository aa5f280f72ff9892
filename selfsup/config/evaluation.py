"""Settings of evaluations."""

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
]
Baseline = Literal["random", "pixels", "colours"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which encoder, on which images."""

    model: str
    """A run folder, a bundle, a folder that timm loads, a timm model name, or a baseline: "pixels"
    or "colours"."""
    data: str
    """Images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz, .npy), shards (.tar), a
    .pack, a Hugging Face data set on disk, cifar10, or torchvision:NAME:FOLDER."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a torchvision data set's train or test."""
    labels: str = "label"
    """The manifest's column with the labels."""
    weights: str = ""
    """For a timm model name: a file of its weights, or "cached" for pretrained weights that already
    lie on this machine; empty: random weights."""
    checkpoint: str = ""
    """For a timm model name: a checkpoint of another project, see --format."""
    format: Format = ""
    """Who wrote the checkpoint, which says how its tensors are called."""
    teacher: bool = False
    """Take a checkpoint's moving average instead of the network that was trained."""
    encoder_args: str = ""
    """For a timm model name: more arguments for timm.create_model as YAML."""
    size: int | None = None
    """Side of the images in pixels; by default the one the model was trained with."""
    batch: int = 256
    """Images at a time through the network."""
    workers: int | None = None
    """Processes that read images; by default 0 for arrays, else 2."""
    seed: int = 0
    """Of splits, the bootstrap and random weights."""
    memory: str = "1GB"
    """What a search may hold beside the features."""
    out: str = ""
    """What to write; by default in the run folder, or here for other models."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ModelConfig):
    """What every evaluation has that ends in a table."""

    against: tuple[str, ...] = ()
    """More models for the table: like --model, or NAME=FILE for a timm model with weights."""
    seeds: tuple[str, ...] = ()
    """Further runs of the same settings with other seeds: for the mean and deviation over all."""
    baselines: tuple[Baseline, ...] = ("random", "pixels", "colours")
    """What a figure has to beat: the same encoder with random weights, the raw pixels, a histogram
    of colours."""
    resamples: int = 1000
    """Bootstrap samples behind each 95 % interval."""
    leaks: bool = True
    """Look for test images that are in train too, by their bytes and by their looks."""


@dataclass(frozen=True, kw_only=True)
class KNNConfig(EvaluateConfig):
    """Weighted k-nearest-neighbour classification of frozen features."""

    FIRST = ("model", "data", "test", "test_split", "k", "temperature", "against", "shots", "out")
    test: str = ""
    """Other labelled images to classify; empty: each image by all the others."""
    test_split: str = ""
    """Like split, for the images to classify; given alone, it is of the same data."""
    k: tuple[int, ...] = (20,)
    """Neighbours that vote; of several each is reported, from one search."""
    temperature: tuple[float, ...] = (0.1,)
    """Divides the cosine in a vote's weight exp(cosine / temperature); each with each k."""
    protocol: Literal["", "lightly", "dino", "moco"] = ""
    """Take k and temperature as that project does: 200 and 0.1 (lightly, moco), 10, 20, 100, 200
    and 0.07 (dino)."""
    shots: tuple[int, ...] = ()
    """Also with only so many labelled images of each class."""
    draws: int = 5
    """Of those images, for the mean and the deviation."""


@dataclass(frozen=True, kw_only=True)
class LinearConfig(EvaluateConfig):
    """A linear classifier on frozen features."""

    FIRST = ("model", "data", "test", "test_split", "solver", "shares", "against", "out")
    test: str = ""
    """Other labelled images to classify; empty: a fifth of each class, kept apart."""
    test_split: str = ""
    """Like split, for the images to classify; given alone, it is of the same data."""
    solver: Literal["logistic", "sgd"] = "logistic"
    """logistic regression with C chosen among 45, or SGD with the learning rate chosen among 13."""
    shares: tuple[float, ...] = (1.0,)
    """Of the training labels: 0.01 0.1 1 answers how many labels are needed."""
    epochs: int = 10
    """Of SGD."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluateConfig):
    """Search: Recall@k, R-precision, MAP@R, mAP; with queries or each image against the others."""

    FIRST = (
        "model",
        "data",
        "queries",
        "queries_split",
        "cuts",
        "camera",
        "rerank",
        "all",
        "against",
        "out",
    )
    queries: str = ""
    """Other labelled images to search with; empty: each image searches all the others."""
    queries_split: str = ""
    """Like split, for the queries; given alone, it is of the same data."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """How neighbours are ranked."""
    cuts: tuple[int, ...] = (1, 2, 4, 8)
    """The k of Recall@k (CMC at rank k) and precision@k."""
    camera: str = ""
    """The column with the camera: a query does not meet its own label under its own camera."""
    sequence: str = ""
    """The column with the sequence: a query meets nothing of its own."""
    junk: str = ""
    """The column that marks gallery images to leave out: by 1, true, yes or junk."""
    rerank: bool = False
    """Also after k-reciprocal re-ranking."""
    all: bool = False
    """Every figure, not only the usual ones."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(EvaluateConfig):
    """Are two images of the same thing: ROC, EER, accept rates, and the threshold to use."""

    FIRST = ("model", "data", "pairs", "far", "keep", "against", "out")
    pairs: str = ""
    """A .csv of pairs: first, second (paths as in the data) and same (1 or 0); empty: pairs made
    from the labels."""
    most: int = 100000
    """Pairs of one label, and of two, that are made from labels."""
    far: tuple[float, ...] = (0.1, 0.01, 0.001)
    """False accept rates to report the true accept rate at."""
    keep: float = 0.01
    """The one whose threshold is kept with the run, for search and bundles."""
    folds: int = 10
    """Of the accuracy with a threshold from the other folds."""


@dataclass(frozen=True, kw_only=True)
class HealthConfig(EvaluateConfig):
    """What embeddings show without labels: spread, rank, hubs; and clusters if there are labels."""

    FIRST = ("model", "data", "views", "most", "against", "out")
    views: int = 4
    """Of each image, for LiDAR and alignment; below 2 for neither."""
    most: int = 10000
    """Images that are looked at."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ModelConfig):
    """Embed images once, so that they can be searched; `--out` is by default RUN/index."""

    data: str = ""
    """Images to put in: a folder, a manifest, arrays, shards, a .pack..."""
    add: bool = False
    """Keep what is in the index; images of the same name are replaced."""
    remove: tuple[str, ...] = ()
    """Names of images to take out."""
    ann: bool = False
    """Search approximately, by usearch: for galleries of millions; needs 'selfsup[ann]'."""
    qdrant: str = ""
    """Also write to this vector database and search there: PATH#COLLECTION for an embedded one, or
    URL#COLLECTION; needs 'selfsup[qdrant]'."""
