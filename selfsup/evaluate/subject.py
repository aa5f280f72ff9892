"""The subject of an evaluation: a run, a timm model or raw pixels, and its features."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import nn

from selfsup import distributed
from selfsup.config import (
    EncoderConfig,
    EvaluateConfig,
    KNNConfig,
    LinearConfig,
    ViewsConfig,
)
from selfsup.data.open import open_source
from selfsup.encoder import Encoder, build, evaluation_view, load
from selfsup.errors import UserError, did_you_mean
from selfsup.evaluate.features import Features, Pixels, extract
from selfsup.progress import bar
from selfsup.seeds import seed_for


class Subject(NamedTuple):
    """What is evaluated."""

    name: str
    """For the table, with the state of its weights."""
    encoder: nn.Module
    views: ViewsConfig
    folder: Path | None
    """The run folder, where results go."""


def open_subject(config: EvaluateConfig) -> Subject:
    """The network that `config.model` names.

    Raises:
        UserError: there is neither such a folder nor such a timm model, or its weights do not fit.
    """
    folder = Path(config.model)
    if folder.is_dir():
        encoder, views = load(folder)
        return Subject(str(folder), encoder, replace(views, size=config.size or views.size), folder)
    if config.model == "pixels":
        plain = ViewsConfig(size=config.size or 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return Subject("raw pixels", Pixels(), plain, None)
    if not timm.is_model(config.model):
        near = did_you_mean(config.model, timm.list_models())
        raise UserError(f"{config.model!r} is neither a folder nor a timm model{near}")
    return _timm(config)


def _timm(config: EvaluateConfig) -> Subject:
    """A timm model with its own preprocessing."""
    cached = config.weights == "cached"
    torch.manual_seed(seed_for(config.seed, 0, "weights"))
    if cached:
        try:
            encoder = Encoder(timm.create_model(config.model, pretrained=True, num_classes=0))
        except Exception as error:  # the hub's client raises many kinds when it has to stay offline
            first = str(error).split("\n")[0]
            raise UserError(
                f"no pretrained weights of {config.model} lie on this machine: {first}"
            ) from None
        state = "pretrained"
    else:
        named = EncoderConfig(
            name=config.model, args=config.encoder_args, stem="standard", weights=config.weights
        )
        encoder = build(named, config.size or 224)
        state = Path(config.weights).name if config.weights else "random weights"
    own = encoder.model.pretrained_cfg
    size = config.size or (own["input_size"][-1] if cached else 224)
    views = evaluation_view(own, size)
    return Subject(f"{config.model} ({state})", encoder, views, None)


def train_and_test(
    subject: Subject, config: KNNConfig | LinearConfig
) -> tuple[Features, Features | None]:
    """Features of the training images and of the test images, if any are named.

    Labels of both are by the names of the classes, the training images' first.
    """
    train = features_of(subject, config.data, config.split, config)
    if not config.test and not config.test_split:
        return train, None
    test = features_of(subject, config.test or config.data, config.test_split, config)
    return train, test.with_classes(train.classes)


def features_of(subject: Subject, data: str, split: str, config: EvaluateConfig) -> Features:
    """The subject's features of the labelled images in `data`, with a bar while it works.

    Raises:
        UserError: the images cannot be opened or have no labels.
    """
    accelerator = distributed.start()
    source = open_source(data, split=split, labels=config.labels, channels=subject.views.channels)
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
