"""Settings of training runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from selfsup.config import presets
from selfsup.config.cache import CacheConfig
from selfsup.config.distillation import RankingDistilConfig
from selfsup.config.encoder import EncoderConfig, InitConfig
from selfsup.config.pipelines import FINETUNE
from selfsup.config.presets import Length, Preset
from selfsup.config.views import ViewsConfig
from selfsup.core.errors import require


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its schedules. Biases and norms have no weight decay."""

    name: Literal["sgd", "adamw", "lars"] = "sgd"
    """Optimizer: SGD with momentum, AdamW, or LARS for batches of thousands of images. LARS does
    not adapt the rate of biases and norms."""
    lr: float = 0.12
    """Peak learning rate for a batch of 256 images; 0, for fine-tuning with AdamW: 0.006 from
    random weights, 0.006 to 0.001 from --init, less the better it tells the classes apart; without
    batch norms (ViT, ConvNeXt...) 0.001, and 0.0002 to 0.00007. For other batches by the square
    root, whatever the rule. 0 for LeJEPA with AdamW: 0.005, without batch norms 0.002."""
    rule: Literal["auto", "linear", "sqrt", "none"] = "auto"
    """How the learning rate scales with the batch size: linearly, with its square root, or not.
    "auto" is linear for SGD and the square root for AdamW and LARS."""
    momentum: float = 0.9
    """Momentum of SGD and LARS. AdamW always has its usual 0.9 and 0.999."""
    trust: float = 0.001
    """Trust coefficient of LARS. It is the length of a step as a fraction of the length of the
    weight tensor, at a learning rate of 1."""
    weight_decay: float = 5e-4
    """Weight decay."""
    final_decay: float | None = None
    """Weight decay at the end of the run, reached by a cosine; by default it stays constant."""
    clip: float | None = None
    """Largest norm of the gradient of all weights; by default gradients are not clipped."""
    clip_each: float | None = None
    """Largest norm of the gradient of each weight tensor; by default gradients are not clipped."""
    warmup: float = 0.05
    """Fraction of the run in which the learning rate rises linearly from 0."""
    layer_decay: float | None = None
    """Factor of the learning rate from one layer of the encoder to the next towards its input. By
    default 0.75 for fine-tuning from --init where there are no batch norms (ViT, ConvNeXt...), else
    1: all layers learn at the same rate."""
    settle: float | None = None
    """Fraction of the run during which the encoder stays as it is, while new layers learn; its rate
    then rises over as many steps. By default --optim.warmup for pretraining from --init, else
    0."""
    head_factor: float = 1.0
    """Learning rate of new layers (projector, predictor, new embedding head) as a multiple of the
    encoder's."""


LARS = OptimConfig(name="lars", lr=1.0, weight_decay=1e-6)
"""For methods that are trained with LARS in their papers. The learning rate is 1 for 256 images and
4 for 4,096. Papers have 3 to 5 for 4,096; SimCLR's square-root rule (appendix B.1) has 1.2 for 256
and 4.8 for 4,096."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Evaluation during training: k-NN accuracy on labelled images."""

    data: str = ""
    """Labelled images for k-NN accuracy during training; empty: no such evaluation."""
    labels: str = "label"
    """Column of the manifest with the labels; of folders "folder:1" takes the first as the label
    (as by default) and "folder:-1" the last; empty reads none."""
    every: int = 1000
    """Steps between two evaluations."""
    k: int = 20
    """Number of nearest neighbours that vote."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation of fine-tuning: searches among images whose classes are not trained on."""

    held_out: float | None = None
    """Fraction of the classes of --data that are not trained on, to validate on them; by default a
    tenth, if these are 8 classes or more and there is no --probe.data. 0: none."""
    data: str = ""
    """Labelled images to validate on instead of held-out classes, in any form of --data. Which
    encoder is exported is chosen on them: do not give those of a final test."""
    labels: str = "label"
    """The same as --labels, of --probe.data."""
    every: int = 0
    """Steps between two probes; 0: about ten in the run. The start and the end are probed too."""
    k: int = 20
    """Number of nearest neighbours that vote in k-NN."""
    export: Literal["best", "last"] = "best"
    """Encoder to export: that with the highest MAP@R in a probe, or that of the last step."""
    keep: str = ""
    """Other labelled images, measured at each probe to see what is forgotten; they choose
    nothing."""
    keep_labels: str = "label"
    """The same as --labels, of --probe.keep."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(InitConfig):
    """Settings of every training run."""

    LENGTHS: ClassVar[Mapping[str, Length]] = presets.PRETRAIN
    """Length of a run by its preset."""

    data: str
    """Images: a folder, a manifest (.csv, .jsonl, .parquet), arrays (.npz, .npy), shards (.tar),
    a .pack, a Hugging Face data set on disk, cifar10, torchvision:NAME:FOLDER; a .pack, a .tar or a
    folder of them at a URL (s3://, https://). Several are written "A + B", or "A * 3 + B * 1" for a
    batch with three images of A for each image of B."""
    out: str
    """The run folder. The same command with the same folder resumes the run."""
    split: str = ""
    """Use only the manifest's rows with this `split`, or torchvision's "train" or "test"."""
    labels: str = "label"
    """Column of the manifest with the labels; of folders "folder:1" takes the first as the label
    (as by default) and "folder:-1" the last; empty reads none."""
    cache: CacheConfig = CacheConfig()
    encoder: EncoderConfig = EncoderConfig()
    views: ViewsConfig = ViewsConfig()
    optim: OptimConfig = OptimConfig()
    preset: Preset = ""
    """Choose the length of the run by the number of images, and encoder and size of views by the
    device, where they are left open. Flags that are given go before it. Empty: standard; quick
    where a CPU pretrains and no encoder is given; or as the run in --out was begun."""
    epochs: int | None = None
    """Number of times that training uses every image; by default by the preset and the number of
    images: 200 of pretraining, 50 of fine-tuning, more of few images and fewer of very many."""
    steps: int | None = None
    """Length of the run in steps, instead of epochs."""
    micro_batch: int | None = None
    """Number of images in one forward pass of a process; by default all of its batch. Fewer images
    need less memory. The result is the same, except that batch norms use fewer images."""
    freeze: int | Literal["all"] = 0
    """Number of blocks of the encoder, from its input, that training does not change; the stem is
    the first. "all": the whole encoder but its embedding head. Frozen batch norms keep their
    statistics."""
    lora: int = 0
    """Rank of LoRA: train two narrow matrices beside each linear layer of a ViT instead of the
    layer itself; 8 is usual. 0: no LoRA."""
    checkpoint_activations: bool = False
    """Compute activations of blocks again in the backward pass instead of keeping them: the same
    result with less memory and about a third more time."""
    sync_bn: bool = False
    """Compute batch-norm statistics over all processes (GPUs only)."""
    seed: int = 0
    """Seed of all random numbers."""
    workers: int | None = None
    """Reader processes for each training process; by default 0 for arrays and 2 for other data, on
    a GPU its share of the cores."""
    max_bad: float = 0.01
    """Largest fraction of unreadable images; the run stops if there are more."""
    log_every: int = 20
    """Steps between two lines of the log."""
    save_every: int | None = None
    """Steps between two checkpoints; by default a tenth of the run, but 20 to 500."""
    keep: int = 2
    """Number of newest checkpoints to keep on disk."""
    other_images: bool = False
    """Go on with a run although its images are not those that it was trained on."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """Print a warning or stop the run when embeddings collapse or no triplet is active."""
    report: bool = True
    """Write report.html at the end of the run. `selfsup report` writes a longer one at any time."""
    track: str = ""
    """Also log to this tracker of accelerate: tensorboard, wandb, mlflow, trackio..."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Settings of pretraining, which needs no labels."""

    LENGTHS: ClassVar[Mapping[str, Length]] = presets.PRETRAIN

    FIRST: ClassVar[tuple[str, ...]] = (
        *("data", "init", "out", "preset", "encoder.name", "views.size", "epochs", "batch"),
        "optim.lr",
        *("workers", "seed", "probe.data"),
    )
    batch: int = 0
    """Number of images in one step, over all processes; 0: 256, or all of fewer images."""
    audit: str = ""
    """File that `selfsup audit` wrote for these images; the unreadable ones are left out."""
    mask_duplicates: bool = False
    """Use one image of each group of near duplicates in an epoch, as found by the audit. Otherwise
    near duplicates can be negatives of each other in a batch. Of a group with more than a hundredth
    of all images only equal files count as one."""
    probe: ProbeConfig = ProbeConfig()


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Settings of fine-tuning with labels, on batches of P classes x K images."""

    LENGTHS: ClassVar[Mapping[str, Length]] = presets.FINETUNE

    FIRST: ClassVar[tuple[str, ...]] = (
        *("data", "init", "out", "preset", "encoder.name", "views.size", "epochs", "classes"),
        "images",
        *("optim.lr", "seed", "probe.held_out", "probe.data", "patience"),
    )
    views: ViewsConfig = FINETUNE
    optim: OptimConfig = OptimConfig(name="adamw", lr=0.0, weight_decay=0.01)
    classes: int = 0
    """Number of classes in a batch: the P of P x K; 0: 16, or all of fewer classes."""
    images: int = 0
    """Number of images of each class in a batch: the K of P x K; 0: 64 / classes."""
    distil: RankingDistilConfig = RankingDistilConfig()
    probe: ValidationConfig = ValidationConfig()
    patience: int = 0
    """Number of probes in a row without a higher MAP@R after which the run stops; 0: it never stops
    early."""


def check_counts(config: TrainConfig) -> None:
    """Refuse a batch of fewer than no images; 0 leaves its numbers open.

    Raises:
        UserError: a number is below 0, with its flag.
    """
    for name in ("batch", "classes", "images"):
        value = getattr(config, name, 0)
        require(value >= 0, f"--{name} must be 0 or more, not {value}")
    size = config.micro_batch
    require(size is None or size > 0, f"--micro-batch must be above 0, not {size}")
