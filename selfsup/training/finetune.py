"""Fine-tuning: labelled images in batches of P classes x K images."""

from collections.abc import Iterator

from torch import Tensor

from selfsup.config import FinetuneConfig
from selfsup.core.errors import require
from selfsup.data.batch_census import census
from selfsup.data.open import training_source
from selfsup.data.samplers import PKSampler
from selfsup.data.sources import Source
from selfsup.data.subset import labelled_images, require_classes
from selfsup.methods.method import Method
from selfsup.training.loop import train_steps
from selfsup.training.pretrain import announce, length, local_batches
from selfsup.training.run import Run


def labelled(config: FinetuneConfig) -> tuple[Source, Tensor]:
    """Open the images of `config.data` and their labels.

    Images without a label are left out, with a count.

    Raises:
        UserError: there are no such images, they have no labels, or all the same.
    """
    source = labelled_images(training_source(config), config.data)
    require_classes(source, config.data, repeated=False)
    assert source.labels is not None
    return source, source.labels


def finetune_steps(run: Run, method: Method, config: FinetuneConfig) -> Iterator[int]:
    """Train on the labelled images of `config.data`; yield the number of finished steps after each.

    Raises:
        UserError: there are no labels, or too few classes or images for P x K.
    """
    views = config.views.views + config.views.local.views
    require(views == 1, f"ranking sees one view of each image; --views has {views}")
    source, labels = labelled(config)
    sampler = PKSampler(labels, p=config.classes, k=config.images, seed=config.seed)
    total = length(config, sampler)
    batch = config.classes * config.images
    announce(run, source, batch, total)
    if run.main:
        run.print_line(preflight(source, sampler, labels))
    batches = local_batches(source, sampler, config.views, config.seed)
    yield from train_steps(run, method, batches, config=config, batch=batch, total=total)


def preflight(source: Source, sampler: PKSampler, labels: Tensor) -> str:
    """Describe an epoch as a table in plain text, at most 80 columns wide."""
    counts = census(sampler, labels)
    names = ", ".join(source.classes[label] for label in sampler.singles[:3])
    more = "..." if len(sampler.singles) > 3 else ""
    left_out = f"{len(sampler.singles)} with one image: {names}{more}" if names else "none"
    rows = {
        "epoch": f"{counts.steps} batches of {sampler.p} classes x {sampler.k} images",
        "images": f"{counts.images}; {counts.unseen} never seen, {counts.repeated} places repeated",
        "classes": f"{len(source.classes)}; left out: {left_out}",
        "anchors": f"{counts.anchors} valid in a batch of {sampler.p * sampler.k}",
        "positives": f"{counts.positives} per anchor",
        "negatives": f"{counts.negatives} per anchor",
    }
    return "\n".join(f"  {name:<11}{value}"[:80] for name, value in rows.items())
