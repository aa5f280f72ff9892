"""The model of an evaluation: a run, a timm model, a checkpoint of others or a baseline."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from selfsup.config import EncoderConfig, EvaluateConfig, ModelConfig, ViewsConfig
from selfsup.core import distributed
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.live import doing
from selfsup.core.notices import notice
from selfsup.core.paths import exists
from selfsup.core.progress import bar
from selfsup.core.seeds import seed_for
from selfsup.data.decode import read_bytes
from selfsup.data.embedding_parts import has_images, read_manifest
from selfsup.data.open import open_source
from selfsup.data.sources import ImageSource, Source
from selfsup.data.subset import labelled_images, require_classes
from selfsup.encoders.encoder import build, load
from selfsup.encoders.evaluation_view import evaluation_view
from selfsup.encoders.published import base_name, is_published, timm_settings
from selfsup.encoders.start import Start, open_start
from selfsup.encoders.weights import first_names
from selfsup.evaluate.baselines import Colours, Pixels
from selfsup.evaluate.embedded_features import stored_features
from selfsup.evaluate.features import Features, extract
from selfsup.evaluate.shared_classes import match_classes


class EvaluatedModel(NamedTuple):
    """A network with its evaluation view."""

    name: str
    """For the table, with the state of its weights."""
    encoder: nn.Module
    views: ViewsConfig
    folder: Path | None = None
    """The run folder, where results go."""
    untrained: Callable[[], nn.Module] | None = None
    """Builds the same network with random weights."""
    warnings: tuple[str, ...] = ()
    """What a reader must know of its weights before the figures."""
    is_baseline: bool = False
    """Whether it stands beside the model in question, so that stored embeddings are not its own."""

    @property
    def short_name(self) -> str:
        """What its progress is called: the run's name, or the first words of another's."""
        return self.name.partition(" (")[0] if self.folder is None else self.folder.name


def open_model(config: ModelConfig) -> EvaluatedModel:
    """Open the network that `config.model` names.

    Raises:
        UserError: there is neither such a folder nor such a timm model, or its weights do not fit.
    """
    doing(f"opening {config.model}")
    require(config.batch > 0, f"--batch must be above 0, not {config.batch}")
    require((config.workers or 0) >= 0, f"--workers must be 0 or more, not {config.workers}")
    require(config.size is None or config.size > 0, f"--size must be above 0, not {config.size}")
    if config.model in ("pixels", "colours"):
        views = ViewsConfig(size=config.size or 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        name = "raw pixels" if config.model == "pixels" else "colours"
        return EvaluatedModel(name, Pixels() if config.model == "pixels" else Colours(), views)
    folder, there = Path(config.model), exists(config.model)
    if there and folder.is_dir():
        start = _open(config, config.model, "")
        blank = lambda: load(folder, blank=True)[0]  # noqa: E731
        return EvaluatedModel(str(folder), start.encoder, start.views, folder, blank)
    if is_published(config.model) or (there and folder.is_file()):
        return _of_start(config, _open(config, config.model, ""))
    if config.init:
        return _of_start(config, _open(config, config.init, config.model))
    return _of_random_weights(config)


def _open(config: ModelConfig, init: str, name: str) -> Start:
    """Open weights, of a network whose timm name may be given."""
    both = f"--model {config.model} brings its own weights: leave --init {config.init} out"
    require(init == config.init or not config.init, both)
    encoder = EncoderConfig(name=name, args=config.encoder_args, pooling=config.pooling)
    weights = replace(config, init=init)
    return open_start(weights, encoder, size=config.size or 0)


def _of_start(config: ModelConfig, start: Start) -> EvaluatedModel:
    """Name a network by where its weights come from."""
    init = config.init or config.model
    source = init if is_published(init) else Path(init).name
    state = source if start.match is None else f"{source}, {start.match}"
    warnings: tuple[str, ...] = ()
    if start.match is not None and start.match.missing:
        missing = start.match.missing
        warnings = (
            f"{len(missing)} tensors of {start.config.name} have random weights, since "
            f"{init} has none for them: {first_names(missing)}",
        )

    def untrained() -> nn.Module:
        torch.manual_seed(seed_for(config.seed, 0, "weights"))
        return build(start.config, start.views.size, channels=start.views.channels)

    name = f"{start.config.name} ({state})"
    return EvaluatedModel(name, start.encoder, start.views, None, untrained, warnings)


def _of_random_weights(config: ModelConfig) -> EvaluatedModel:
    """Build a timm model that was never trained, with the preprocessing of its published weights.

    Raises:
        UserError: timm has no model of that name.
    """
    name = base_name(config.model)
    for flag, value in (("format", config.format), ("moving-average", config.moving_average)):
        require(not value, f"--{flag} {value} is for a file of weights: give --init FILE")
    if not timm.is_model(name):
        guess = did_you_mean(config.model, timm.list_models())
        raise UserError(f"{config.model!r} is neither a folder, a file nor a timm model{guess}")
    require(
        name == config.model,
        f"{config.model} names published weights: --model timm:{config.model} reads them, --model "
        f"{name} has random ones, --init FILE gives those of a file",
    )
    torch.manual_seed(seed_for(config.seed, 0, "weights"))
    size = config.size or 224
    encoder = EncoderConfig(
        name=name, args=config.encoder_args, pooling=config.pooling, stem="standard"
    )
    views = evaluation_view(timm_settings(name), size)
    return EvaluatedModel(f"{name} (random weights)", build(encoder, size), views)


def open_baselines(model: EvaluatedModel, config: EvaluateConfig) -> list[EvaluatedModel]:
    """Open the baselines that its figures have to beat, and the models that it is compared with.

    Raises:
        UserError: one of `config.against` is no model.
    """
    baselines = []
    others = ("test", "queries", "data")
    without = [data for name in others if not has_images(data := getattr(config, name, ""))]
    if config.baselines and without:
        where = read_manifest(Path(without[0])).data
        notice(f"no baselines: the images of {without[0]} are not at {where} any more")
    for kind in () if without else config.baselines:
        if kind == "random" and model.untrained is not None:
            torch.manual_seed(seed_for(config.seed, 0, "weights"))
            baselines.append(EvaluatedModel("random", model.untrained(), model.views))
        elif kind != "random" and model.views.channels == 3:
            settings = replace(config, model=kind, size=min(model.views.size, 64))
            if not isinstance(model.encoder, Pixels | Colours):
                baselines.append(open_model(settings)._replace(name=kind))
    for other in config.against:
        name, _, file = (other, "", "") if Path(other).exists() else other.partition("=")
        settings = replace(config, model=name, init=file, format="", moving_average=False)
        opened = open_model(settings)
        short = opened.name if opened.folder is None else opened.folder.name
        baselines.append(opened._replace(folder=None, name=short))
    return [baseline._replace(is_baseline=True) for baseline in baselines]


def train_and_test(
    model: EvaluatedModel, config: ModelConfig, test: str, test_split: str
) -> tuple[Features, Features | None]:
    """Embed the training images, and the test images if any are named.

    Labels of both are by the names of the classes, the training images' first.

    Raises:
        UserError: images cannot be opened or have no labels, or no class is in both.
    """
    opened = open_images(model, config.data, config.split, config)
    images = labelled_images(opened, config.data)
    require_classes(images, config.data, repeated=not test and not test_split)
    train = embed(model, images, config)
    if not test and not test_split:
        return train, None
    tested = labelled_features(model, test or config.data, test_split, config)
    names = where(config.data, config.split), where(test or config.data, test_split)
    return train, match_classes(train, tested, *names)


def where(data: str, split: str) -> str:
    """Name a set of images in a message."""
    return f"{data} ({split})" if split else data


def open_images(model: EvaluatedModel, data: str, split: str, config: ModelConfig) -> Source:
    """Open the images of `data`, with the channels that the model takes.

    Raises:
        UserError: they cannot be opened.
    """
    return open_source(
        data,
        split=split,
        labels=config.labels,
        channels=model.views.channels,
        cache=config.cache,
    )


def labelled_features(
    model: EvaluatedModel, data: str, split: str, config: ModelConfig
) -> Features:
    """Embed the labelled images in `data`, with a progress bar.

    Raises:
        UserError: the images cannot be opened or have no labels.
    """
    return embed(model, labelled_images(open_images(model, data, split, config), data), config)


def embed(model: EvaluatedModel, source: Source, config: ModelConfig) -> Features:
    """Embed a source, with a progress bar, or read what its folder of embeddings has.

    Raises:
        UserError: the folder is of another model.
    """
    stored = stored_features(
        model.name, model.encoder, model.views, source, is_baseline=model.is_baseline
    )
    if stored is not None:
        return stored
    accelerator = distributed.start()
    encoder = model.encoder.to(accelerator.device)
    images = len(source) / accelerator.num_processes
    what = f"features of {model.short_name}"
    with bar(what, images, shown=accelerator.is_main_process) as advance:
        return extract(
            encoder,
            source,
            model.views,
            device=accelerator.device,
            batch=config.batch,
            workers=config.workers,
            progress=advance,
        )


def embed_files(model: EvaluatedModel, files: Sequence[Path], config: ModelConfig) -> Tensor:
    """Embed images by their paths, in this process. float32 [n, d].

    Raises:
        UserError: one cannot be read.
    """
    source = ImageSource(
        partial(_read_path, files),
        list(map(str, files)),
        None,
        [],
        channels=model.views.channels,
    )
    source.in_memory = True  # few images: reader processes would take longer to start
    features = embed(model, source, config)
    if features.bad:
        broken = set(range(len(files))) - set(features.positions.tolist())
        raise UserError(f"{files[min(broken)]} cannot be read as an image")
    return features.x


def _read_path(files: Sequence[Path], position: int) -> bytes:
    """Read a file; no closure, so that worker processes can have it."""
    return read_bytes(files[position])


def search_device(*features: Tensor) -> torch.device:
    """The GPU, if there is one that holds the features three times; else the CPU.

    A search holds them as they are and scaled to length 1, and products besides.
    """
    device: torch.device = distributed.start().device
    size = sum(x.nbytes for x in features)
    if device.type == "cuda" and 3 * size < torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")
