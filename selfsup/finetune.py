"""Fine-tuning: labelled images in batches of P classes x K images."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from selfsup.config import FinetuneConfig, ViewsConfig
from selfsup.data.open import open_source
from selfsup.data.samplers import PKSampler
from selfsup.encoder import Encoder, build, load
from selfsup.errors import UserError
from selfsup.methods.method import Method
from selfsup.pretrain import announce, length, local_batches
from selfsup.run import Run
from selfsup.train import train


def starting_encoder(config: FinetuneConfig) -> Encoder:
    """The encoder of `config.init`, or a new one.

    Raises:
        UserError: `config.init` holds no encoder.
    """
    if not config.init:
        return build(config.encoder, config.views.size)
    folder = Path(config.init)
    if not folder.exists():
        raise UserError(f"--init {folder} does not exist")
    return load(folder)[0]


def finetune(run: Run, method: Method, config: FinetuneConfig) -> Iterator[int]:
    """Train on the labelled images of `config.data`; yields the number of steps done.

    Raises:
        UserError: there are no labels, or too few classes or images for P x K.
    """
    source = open_source(config.data, split=config.split)
    if source.labels is None:
        raise UserError(
            f"{config.data} has no labels: put each class in a sub-folder, or give a manifest with "
            "a label on each row"
        )
    sampler = PKSampler(source.labels, p=config.p, k=config.k, seed=config.seed)
    total = length(config, sampler)
    batch = config.p * config.k
    announce(run, source, batch, total)
    if sampler.singles:
        names = ", ".join(source.classes[label] for label in sampler.singles[:5])
        run.tell(f"left out {len(sampler.singles)} classes with one image: {names}...")
    batches = local_batches(source, sampler, config.views, config.seed)
    yield from train(run, method, batches, config=config, batch=batch, total=total)


def views_of(config: FinetuneConfig) -> ViewsConfig:
    """The views, at the size and with the normalisation that the encoder was trained for."""
    if not config.init:
        return config.views
    made = load(Path(config.init))[1]
    return replace(config.views, size=made.size, mean=made.mean, std=made.std)
