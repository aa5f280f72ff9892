"""The subject of an evaluation: a run, a timm model, a checkpoint of others or a baseline."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import nn

from selfsup.config import EncoderConfig, EvaluateConfig, Format, ModelConfig, ViewsConfig
from selfsup.core import distributed
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.progress import bar
from selfsup.core.seeds import seed_for
from selfsup.data.open import open_source
from selfsup.data.sources import Source
from selfsup.encoders.encoder import Encoder, build, evaluation_view, load
from selfsup.encoders.third_party import Named, Stem, fill_foreign, read_foreign, stem_of
from selfsup.evaluate.baselines import Colours, Pixels
from selfsup.evaluate.features import Features, extract


class Subject(NamedTuple):
    """What is evaluated."""

    name: str
    """For the table, with the state of its weights."""
    encoder: nn.Module
    views: ViewsConfig
    folder: Path | None = None
    """The run folder, where results go."""
    blank: Callable[[], nn.Module] | None = None
    """Makes the same network with random weights."""


def open_subject(config: ModelConfig) -> Subject:
    """The network that `config.model` names.

    Raises:
        UserError: there is neither such a folder nor such a timm model, or its weights do not fit.
    """
    require(config.batch > 0, f"--batch must be above 0, not {config.batch}")
    require((config.workers or 0) >= 0, f"--workers must be 0 or more, not {config.workers}")
    require(config.size is None or config.size > 0, f"--size must be above 0, not {config.size}")
    folder = Path(config.model)
    if folder.is_dir():
        encoder, views = load(folder)
        views = replace(views, size=config.size or views.size)
        return Subject(str(folder), encoder, views, folder, lambda: load(folder, blank=True)[0])
    if config.model in ("pixels", "colours"):
        plain = ViewsConfig(size=config.size or 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        name = "raw pixels" if config.model == "pixels" else "colours"
        return Subject(name, Pixels() if config.model == "pixels" else Colours(), plain)
    if not timm.is_model(config.model):
        near = did_you_mean(config.model, timm.list_models())
        raise UserError(f"{config.model!r} is neither a folder nor a timm model{near}")
    return _timm(config)


def _timm(config: ModelConfig) -> Subject:
    """A timm model with its own preprocessing."""
    given = [bool(config.weights), bool(config.checkpoint)]
    require(sum(given) < 2, "--weights and --checkpoint are two ways to give weights: choose one")
    require(
        bool(config.checkpoint) == bool(config.format),
        "--checkpoint FILE and --format (who wrote it) go together",
    )
    torch.manual_seed(seed_for(config.seed, 0, "weights"))
    cached = config.weights == "cached"
    if cached:
        try:
            encoder = Encoder(timm.create_model(config.model, pretrained=True, num_classes=0))
        except Exception as error:  # the hub's client raises many kinds when it has to stay offline
            first = str(error).split("\n")[0]
            raise UserError(
                f"no pretrained weights of {config.model} lie on this machine: {first}"
            ) from None
        state = "pretrained"
    elif config.checkpoint:
        encoder, state = _foreign(config, config.format)
    else:
        encoder = build(_named(config, config.weights), config.size or 224)
        state = Path(config.weights).name if config.weights else "random weights"
    own = encoder.model.pretrained_cfg
    size = config.size or (own["input_size"][-1] if cached else 224)
    stem = _stem(config, encoder.model.state_dict())

    def blank() -> nn.Module:
        torch.manual_seed(seed_for(config.seed, 0, "weights"))
        return build(_named(config, "", stem), size)

    views = evaluation_view(own, size)
    made = blank if config.weights or config.checkpoint else None
    return Subject(f"{config.model} ({state})", encoder, views, None, made)


def _named(config: ModelConfig, weights: str, stem: Stem = "standard") -> EncoderConfig:
    return EncoderConfig(name=config.model, args=config.encoder_args, stem=stem, weights=weights)


def _stem(config: ModelConfig, named: Named) -> Stem:
    """Of a ResNet as its tensors tell; other networks have none of ours."""
    family = timm.model_entrypoint(config.model).__module__.rsplit(".", 1)[-1]
    return stem_of(named) if family == "resnet" else "standard"


def _foreign(config: ModelConfig, format: Format) -> tuple[Encoder, str]:
    """A timm model with the tensors of another project's checkpoint, and how they fitted."""
    file = Path(config.checkpoint)
    named = read_foreign(file, format, teacher=config.teacher)
    encoder = build(_named(config, "", _stem(config, named)), config.size or 224)
    match = fill_foreign(encoder.model, named, file, format)
    return encoder, f"{file.name}, {match}"


def rivals(subject: Subject, config: EvaluateConfig) -> list[Subject]:
    """The baselines that its figures have to beat, and the models that are put beside it.

    Raises:
        UserError: one of `config.against` is no model.
    """
    found = []
    for kind in config.baselines:
        if kind == "random" and subject.blank is not None:
            torch.manual_seed(seed_for(config.seed, 0, "weights"))
            found.append(Subject("random", subject.blank(), subject.views))
        elif kind != "random" and subject.views.channels == 3:
            plain = replace(config, model=kind, size=min(subject.views.size, 64))
            if not isinstance(subject.encoder, Pixels | Colours):
                found.append(open_subject(plain)._replace(name=kind))
    for model in config.against:
        name, _, weights = (model, "", "") if Path(model).is_dir() else model.partition("=")
        one = replace(config, model=name, weights=weights, checkpoint="", format="")
        made = open_subject(one)
        short = made.name if made.folder is None else made.folder.name
        found.append(made._replace(folder=None, name=short))
    return found


def train_and_test(
    subject: Subject, config: ModelConfig, test: str, test_split: str
) -> tuple[Features, Features | None]:
    """Features of the training images and of the test images, if any are named.

    Labels of both are by the names of the classes, the training images' first.
    """
    train = features_of(subject, config.data, config.split, config)
    if not test and not test_split:
        return train, None
    found = features_of(subject, test or config.data, test_split, config)
    return train, found.with_classes(train.classes)


def source_of(subject: Subject, data: str, split: str, config: ModelConfig) -> Source:
    """The images of `data`, with the channels that the subject takes.

    Raises:
        UserError: they cannot be opened.
    """
    return open_source(data, split=split, labels=config.labels, channels=subject.views.channels)


def features_of(subject: Subject, data: str, split: str, config: ModelConfig) -> Features:
    """The subject's features of the labelled images in `data`, with a bar while it works.

    Raises:
        UserError: the images cannot be opened or have no labels.
    """
    source = source_of(subject, data, split, config)
    require(source.labels is not None, f"{data} has no labels; this needs them")
    return embed(subject, source, config)


def embed(subject: Subject, source: Source, config: ModelConfig) -> Features:
    """The subject's features of a source, with a bar while it works."""
    accelerator = distributed.start()
    encoder = subject.encoder.to(accelerator.device)
    own = len(source) / accelerator.num_processes
    with bar("features", own, shown=accelerator.is_main_process) as advance:
        return extract(
            encoder,
            source,
            subject.views,
            device=accelerator.device,
            batch=config.batch,
            workers=config.workers,
            progress=advance,
        )
