"""Settings of training runs."""

from dataclasses import dataclass
from typing import Literal

from selfsup.config.pipelines import FINETUNE
from selfsup.config.views import EncoderConfig, ViewsConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move. Biases and norms are never decayed."""

    name: Literal["sgd", "adamw", "lars"] = "sgd"
    """SGD with momentum, AdamW, or LARS (for batches of thousands; biases and norms are neither
    decayed nor adapted)."""
    lr: float = 0.12
    """Peak learning rate at a batch of 256 (0.12: lightly's for CIFAR)."""
    rule: Literal["linear", "sqrt", "none"] = "linear"
    """How it grows with the batch: like it, like its square root, or not."""
    momentum: float = 0.9
    """Of SGD and LARS; AdamW uses its usual 0.9 and 0.999."""
    trust: float = 0.001
    """LARS: a step's length as a share of the weight's own, at a rate of 1."""
    weight_decay: float = 5e-4
    """Decay of weights (lightly's for CIFAR)."""
    final_decay: float | None = None
    """Decay at the end of the run, reached by a cosine; by default the same."""
    clip: float | None = None
    """Longest gradient, over all weights together; by default any."""
    clip_each: float | None = None
    """Longest gradient of each weight tensor by itself; by default any."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises from 0."""


LARS = OptimConfig(name="lars", lr=1.0, rule="sqrt", weight_decay=1e-6)
"""For methods that the papers train with LARS: 1 at 256 images, 4 at 4,096, where they have 3 to 5
(SimCLR's square-root rule, appendix B.1, has 1.2 and 4.8)."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """k-NN accuracy on labelled images while training."""

    data: str = ""
    """Labelled images to look at; empty: no probe."""
    labels: str = "label"
    """The manifest's column with the labels."""
    every: int = 1000
    """Steps between two looks."""
    k: int = 20
    """Neighbours that vote."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training run has."""

    data: str
    """Images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz, .npy), shards (.tar),
    a .pack, a Hugging Face data set on disk, cifar10, torchvision:NAME:FOLDER; or several,
    "A + B" or "A * 3 + B * 1" with their shares of a batch."""
    out: str
    """The run folder. The same command with the same folder goes on where it stopped."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a torchvision data set's train or test."""
    labels: str = "label"
    """The manifest's column with the labels."""
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
    on_collapse: Literal["warn", "stop"] = "warn"
    """What to do when the embeddings have collapsed or nothing is left to learn from: say so, or
    stop the run."""
    report: bool = True
    """Write report.html at the end of the run; tools/report.py writes a longer one at any time."""
    track: str = ""
    """Also log to this tracker of accelerate: tensorboard, wandb, mlflow, trackio..."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Pretraining without labels."""

    FIRST = (
        *("data", "out", "encoder.name", "views.size", "epochs", "batch", "optim.lr", "workers"),
        *("seed", "probe.data"),
    )
    batch: int = 256
    """Images of one step, over all processes."""
    audit: str = ""
    """What tools/audit.py wrote of these images: the bad ones are left out from the start."""
    mask_duplicates: bool = False
    """Near duplicates of the audit count as one image: each epoch sees one of them, so that they
    are never each other's negatives within a batch."""
    probe: ProbeConfig = ProbeConfig()


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Fine-tuning with labels, on batches of P classes x K images."""

    FIRST = (
        *("data", "init", "out", "encoder.name", "views.size", "epochs", "classes", "images"),
        *("optim.lr", "seed"),
    )
    init: str = ""
    """The run whose encoder to start from, or a folder that timm loads; empty: random weights."""
    views: ViewsConfig = FINETUNE
    optim: OptimConfig = OptimConfig(name="adamw", lr=1e-3, weight_decay=0.01)
    epochs: int = 50
    """Times that training sees every image."""
    classes: int = 16
    """Classes in a batch: the P of P x K."""
    images: int = 4
    """Images of each class in a batch: the K of P x K."""
