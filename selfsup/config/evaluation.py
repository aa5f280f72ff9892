"""Settings of evaluations."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Suppress

from selfsup.config.cache import CacheConfig
from selfsup.config.encoder import InitConfig, Pooling

Baseline = Literal["random", "pixels", "colours"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(InitConfig):
    """Settings of the model and of the images."""

    model: str
    """The encoder: whatever --init of training takes (a run, a bundle, a folder that timm loads, a
    file of weights, timm:NAME or hf-hub:NAME), the name of a timm model, with random weights or
    those of --init, or one of the baselines "pixels" and "colours"."""
    data: str
    """Images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz, .npy), shards (.tar), a
    .pack, a Hugging Face data set on disk, cifar10, or torchvision:NAME:FOLDER; a .pack, a .tar or
    a folder of them at a URL (s3://, https://)."""
    split: str = ""
    """Use only the manifest's rows with this `split`, or torchvision's "train" or "test"."""
    labels: str = "label"
    """Column of the manifest with the labels; of folders "folder:1" takes the first as the label
    (as by default) and "folder:-1" the last; empty reads none."""
    cache: CacheConfig = CacheConfig()
    encoder_args: str = ""
    """More arguments of timm.create_model for a timm model, as YAML."""
    pooling: Pooling = ""
    """What a ViT makes its features of: the class token (cls), the mean of patches (mean), both
    (cls+mean), or what timm has for it (native); empty: what its authors evaluate."""
    size: int | None = None
    """Side of the images in pixels; by default the size that the model was trained with."""
    batch: int = 256
    """Number of images in one forward pass."""
    workers: int | None = None
    """Reader processes; by default 0 for arrays and 2 for other data, on a GPU its share of the
    cores."""
    seed: int = 0
    """Seed of splits, of the bootstrap and of random weights."""
    memory: str = "1GB"
    """Memory that a search may use in addition to the features."""
    out: str = ""
    """File or folder to write; by default in the run folder, or in the current folder for other
    models."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ModelConfig):
    """Settings of every evaluation whose result is a table."""

    against: tuple[str, ...] = ()
    """More models for the table, written as --model, or NAME=FILE for a timm model with weights of
    a file."""
    seeds: tuple[str, ...] = ()
    """More runs with the same settings and other seeds, for a mean and a standard deviation."""
    baselines: tuple[Baseline, ...] = ("random", "pixels", "colours")
    """Baselines: the same encoder with random weights, raw pixels, and a histogram of colours."""
    resamples: int = 1000
    """Number of bootstrap samples for each 95 % interval."""
    leaks: bool = True
    """Search for test images that are also in train: equal files and similar images."""


@dataclass(frozen=True, kw_only=True)
class KNNConfig(EvaluateConfig):
    """Classify frozen features by a weighted vote of the k nearest neighbours."""

    FIRST = ("model", "data", "test", "test_split", "k", "temperature", "against", "shots", "out")
    test: str = ""
    """Labelled images to classify; empty: each image of --data is classified by all others."""
    test_split: str = ""
    """Like --split, for the images to classify; without --test, it selects images of --data."""
    k: tuple[int, ...] = (20,)
    """Number of neighbours that vote. With several numbers, a result for each."""
    temperature: tuple[float, ...] = (0.1,)
    """Temperature of the votes, whose weights are exp(cosine / temperature). With several numbers,
    a result for each of them with each k."""
    protocol: Literal["", "lightly", "dino", "moco"] = ""
    """Use the k and temperature of a project. lightly and moco: 200 and 0.1. dino: 10, 20, 100, 200
    and 0.07."""
    shots: tuple[int, ...] = ()
    """Also evaluate with only this number of labelled images of each class."""
    draws: int = 5
    """Number of random choices of those images, for a mean and a standard deviation."""


@dataclass(frozen=True, kw_only=True)
class LinearConfig(EvaluateConfig):
    """Train and evaluate a linear classifier on frozen features."""

    FIRST = ("model", "data", "test", "test_split", "solver", "shares", "against", "out")
    test: str = ""
    """Labelled images to classify; empty: a fifth of each class of --data, held out."""
    test_split: str = ""
    """Like --split, for the images to classify; without --test, it selects images of --data."""
    solver: Literal["logistic", "sgd"] = "logistic"
    """Logistic regression with the best of 45 values of C, or SGD with the best of 13 learning
    rates."""
    shares: tuple[float, ...] = (1.0,)
    """Fractions of the training labels to use, a result for each. 0.01 0.1 1 shows how many labels
    are needed."""
    epochs: int = 10
    """Number of epochs of SGD."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluateConfig):
    """Evaluate search: Recall@k, R-precision, MAP@R, mAP."""

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
    """Labelled query images; empty: each image of --data is a query for all others."""
    queries_split: str = ""
    """Like --split, for the queries; without --queries, it selects images of --data."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """Distance that ranks the gallery."""
    cuts: tuple[int, ...] = (1, 2, 4, 8)
    """Values of k in Recall@k (CMC at rank k) and precision@k."""
    camera: str = ""
    """Column with the camera. For each query, images of the same label and the same camera are left
    out of the gallery."""
    sequence: str = ""
    """Column with the sequence. For each query, images of the same sequence are left out of the
    gallery."""
    junk: str = ""
    """Column that marks gallery images to leave out, with the value 1, true, yes or junk."""
    rerank: bool = False
    """Also report the figures after k-reciprocal re-ranking."""
    all: bool = False
    """Report all figures, not only the usual ones."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(EvaluateConfig):
    """Evaluate whether two images show the same thing: ROC, EER, accept rates, threshold."""

    FIRST = ("model", "data", "pairs", "far", "keep", "against", "out")
    pairs: str = ""
    """A .csv of pairs with columns first, second (paths as in the data) and same (1 or 0); empty:
    random pairs by their labels."""
    most: int = 100000
    """Largest number of random pairs with equal labels, and with different labels."""
    far: tuple[float, ...] = (0.1, 0.01, 0.001)
    """False accept rates at which the true accept rate is reported."""
    keep: float = 0.01
    """False accept rate whose threshold is saved with the run, for search and bundles."""
    folds: int = 10
    """Number of folds for the accuracy; the threshold of each fold comes from the other folds."""


@dataclass(frozen=True, kw_only=True)
class HealthConfig(EvaluateConfig):
    """Measure embeddings without labels: spread, rank, hubs; and clusters if there are labels."""

    FIRST = ("model", "data", "views", "most", "against", "out")
    views: int = 4
    """Number of views of each image, for LiDAR and alignment. Below 2, both are left out."""
    most: int = 10000
    """Largest number of images to use."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ModelConfig):
    """Embed images for later searches; `--out` is RUN/index by default."""

    data: str = ""
    """Images to add to the index: a folder, a manifest, arrays, shards, a .pack..."""
    add: bool = False
    """Add to an existing index; images with the same name are replaced."""
    remove: tuple[str, ...] = ()
    """Names of images to remove from the index."""
    ann: bool = False
    """Search approximately, for galleries of millions of images; needs 'selfsup[ann]' (usearch)."""
    qdrant: str = ""
    """Vector database to write to and to search in, PATH#COLLECTION for an embedded one or
    URL#COLLECTION; needs 'selfsup[qdrant]'."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ModelConfig):
    """Embed any number of images into Parquet files, once; `--out` is RUN/embeddings by default."""

    FIRST = ("model", "data", "out", "dtype", "share", "part", "max_bad")
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the embeddings on disk. float16 takes half the room and has three digits."""
    share: str = ""
    """Make a share of the parts, such as 2/8, the second of eight: for jobs that know nothing of
    each other. Processes of `accelerate launch` share them out by themselves."""
    part: int = 65536
    """Number of images in a part file, rounded up to a multiple of --batch."""
    max_bad: float = 0.01
    """Largest fraction of unreadable images; embedding stops if there are more."""
    seed: Suppress[int] = 0
    memory: Suppress[str] = ""


@dataclass(frozen=True, kw_only=True)
class BlendConfig(ModelConfig):
    """Mix the weights of two encoders, measure each mix, and keep the best."""

    FIRST = ("model", "other", "on", "mixes", "size", "out")
    other: str
    """The second encoder, of the same network: such as a run that was fine-tuned from --model."""
    on: tuple[str, ...]
    """Sets of labelled images that the mixes are measured on, written as --data. The best mix is
    chosen by them: give classes that neither training nor the final test has."""
    data: Suppress[str] = ""
    mixes: int = 11
    """Number of mixes, evenly from the first encoder to the second."""


@dataclass(frozen=True, kw_only=True)
class CompareDistilledConfig(ModelConfig):
    """Compare a student with its teacher and with a student without one: the gap that it closed."""

    FIRST = ("teacher", "student", "baseline", "published", "data", "k", "json", "out")
    model: Suppress[str] = ""
    teacher: str
    """The teacher: a run, a bundle, a folder that timm loads, a file of weights, timm:NAME or
    hf-hub:NAME."""
    student: str
    """The student that learnt from it, written in the same way."""
    baseline: str
    """The same student without the teacher, trained for as long."""
    published: str = ""
    """Published weights at the student's size, if there are any."""
    k: int = 20
    """Number of neighbours that vote, of k-NN."""
    temperature: float = 0.1
    """Temperature of the votes."""
    resamples: int = 1000
    """Number of bootstrap samples for each 95 % interval."""
    timed: int = 64
    """Number of images in a forward pass that is timed."""
    rounds: int = 7
    """Number of rounds in which the models are timed in turn; their median counts."""
    json: bool = False
    """Print figures as JSON instead of the table."""
    out: str = ""
    """File to write the figures to as JSON; empty: none."""
