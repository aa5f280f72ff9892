"""Every setting, with its default, unit and source: frozen dataclasses that import no torch.

They live in one file so that help comes without loading the libraries that do the work.
"""

from dataclasses import dataclass
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
    """More arguments for timm.create_model as YAML: "{channels: [32, 64, 128, 256]}"."""
    weights: str = ""
    """Start from this file (.safetensors, or .pth without code in it); empty: random weights."""
    channels_last: bool = True
    """Memory layout of images: with bfloat16 on a CPU 1.6 to 2.2 times faster for ResNets."""
    compile: bool = False
    """Run through torch.compile: 13 to 104 s to start and 0 to 4 % faster where measured (CPU)."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Random views of an image. The defaults are SimCLR's (Chen et al. 2020, appendix A)."""

    size: int = 96
    """Side of a view in pixels."""
    views: int = 2
    """How many views of each image a step sees."""
    area: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that a crop covers, drawn uniformly."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a crop, drawn uniformly in its logarithm."""
    interpolation: Interpolation = "bicubic"
    """How a crop is resized; always antialiased (bicubic in SimCLR's code, bilinear in lightly)."""
    flip: float = 0.5
    """Probability of a left-right flip."""
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
    grey: float = 0.2
    """Probability of dropping the colour."""
    blur: float = 0.5
    """Probability of a Gaussian blur; its kernel is a tenth of the side, made odd."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Width of the blur in pixels, drawn uniformly."""
    solarize: float = 0.0
    """Probability of inverting values from 128 up (BYOL)."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel, of values in [0, 1] (ImageNet's)."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides each channel (ImageNet's)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move. Biases and norms are never decayed."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: float = 0.12
    """Peak learning rate at a batch of 256, scaled linearly with it (lightly's for CIFAR)."""
    momentum: float = 0.9
    """SGD's momentum; AdamW uses its usual 0.9 and 0.999."""
    weight_decay: float = 5e-4
    """Decay of weights (lightly's for CIFAR)."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises from 0."""


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

    temperature: float = 0.2
    """Divides cosine similarities; 0.5 in the paper for CIFAR-10, 0.1 for ImageNet."""
    hidden: int = 512
    """Width of the projector's hidden layer."""
    dim: int = 128
    """Width of a projection."""
    norm: Literal["batch", "layer"] = "batch"
    """In the projector: batch as in the paper, or layer, whose result is the same on any number of
    processes and micro-batches."""


@dataclass(frozen=True, kw_only=True)
class TripletConfig:
    """Triplet loss with batch-hard mining (Hermans et al. 2017, https://arxiv.org/abs/1703.07737)."""

    margin: float = 0.2
    """How much farther the negative must be (FaceNet's 0.2, for embeddings of length 1)."""
    soft: bool = False
    """log(1 + exp(d_ap - d_an)) in place of the margin (Hermans et al., section 2)."""
    distance: Literal["euclidean", "squared", "cosine"] = "euclidean"
    """Between embeddings; the same in mining and in the loss."""
    normalize: bool = True
    """Scale embeddings to length 1 before measuring."""
    dim: int = 128
    """Width of the embedding head; 0 keeps the encoder's features as they are."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """k-NN accuracy on labelled images while training."""

    data: str = ""
    """Labelled images to look at; empty: no probe."""
    every: int = 1000
    """Steps between two looks."""
    k: int = 20
    """Neighbours that vote."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training run has."""

    data: str
    """Images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz), cifar10, or
    torchvision:NAME:FOLDER."""
    out: str
    """The run folder. The same command with the same folder goes on where it stopped."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a torchvision data set's train or test."""
    encoder: EncoderConfig = EncoderConfig()
    views: ViewsConfig = ViewsConfig()
    optim: OptimConfig = OptimConfig()
    epochs: int = 200
    """Times that training sees every image."""
    steps: int | None = None
    """Length of the run in steps, in place of epochs."""
    micro_batch: int | None = None
    """Images at a time through the network; smaller saves memory, the result is the same but for
    batch statistics."""
    sync_bn: bool = False
    """Batch-norm statistics over all processes (GPUs only)."""
    seed: int = 0
    """Everything random follows from it."""
    workers: int | None = None
    """Processes that read images, for each training process; by default 0 for arrays, else 2."""
    max_bad: float = 0.01
    """Stop when more than this share of the images cannot be read."""
    log_every: int = 20
    """Steps between two lines of the log."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints that stay on disk."""
    track: str = ""
    """Also log to this tracker of accelerate: tensorboard, wandb, mlflow, trackio..."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Pretraining without labels."""

    batch: int = 256
    """Images of one step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Fine-tuning with labels, on batches of P classes x K images."""

    init: str = ""
    """The run whose encoder to start from, or a folder that timm loads; empty: random weights."""
    p: int = 16
    """Classes in a batch."""
    k: int = 4
    """Images of each class in a batch."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What every evaluation tool has."""

    model: str
    """A run folder, a folder that timm loads, a timm model name, or "pixels"."""
    data: str
    """Labelled images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz), cifar10, or
    torchvision:NAME:FOLDER."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a torchvision data set's train or test."""
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
