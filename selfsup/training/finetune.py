"""Fine-tuning: labelled images in batches of P classes x K images."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from selfsup.config import FinetuneConfig
from selfsup.core.errors import require
from selfsup.core.live import doing
from selfsup.data.batch_census import census
from selfsup.data.held_out import fraction_held_out, hold_out
from selfsup.data.open import training_source
from selfsup.data.samplers import PKSampler
from selfsup.data.sources import Source
from selfsup.data.subset import labelled_images, require_classes
from selfsup.methods.method import Method
from selfsup.training.loop import train_steps
from selfsup.training.pretrain import announce, length, local_batches
from selfsup.training.run import Run


class LabelledImages(NamedTuple):
    """The images of a fine-tuning, all with labels."""

    trained: Source
    """Images to train on."""
    held_out: Source | None
    """Images of classes that are not trained on, to validate on; None where there are none."""

    @property
    def labels(self) -> Tensor:
        """Labels of the images to train on, [n]."""
        assert self.trained.labels is not None
        return self.trained.labels


def labelled(config: FinetuneConfig) -> LabelledImages:
    """Open the images of `config.data`, divided into those to train on and those held out.

    Images without a label are left out, with a count.

    Raises:
        UserError: there are no such images, they have no labels, or all the same; or so many
            classes cannot be held out.
    """
    doing("opening the images")
    source = labelled_images(training_source(config), config.data)
    require_classes(source, config.data, repeated=False)
    assert source.labels is not None
    fraction = fraction_held_out(source.labels, config.probe)
    return LabelledImages(*hold_out(source, fraction=fraction, seed=config.seed))


def sampler_and_length(config: FinetuneConfig, labels: Tensor) -> tuple[PKSampler, int]:
    """Sample P classes x K images of those to train on, and count the steps of the run.

    Raises:
        UserError: there are too few classes or images for P x K, or no steps.
    """
    sampler = PKSampler(labels, p=config.classes, k=config.images, seed=config.seed)
    return sampler, length(config, sampler)


def finetune_steps(run: Run, method: Method, config: FinetuneConfig) -> Iterator[int]:
    """Train on the labelled images of `config.data`; yield the number of finished steps.

    It is yielded once before the first step, as 0 or as that of the checkpoint which a run goes on
    from, and after each step.

    Raises:
        UserError: there are no labels, or too few classes or images for P x K.
    """
    views = config.views.views + config.views.local.views
    require(views == 1, f"ranking sees one view of each image; --views has {views}")
    images = labelled(config)
    sampler, total = sampler_and_length(config, images.labels)
    batch = config.classes * config.images
    announce(run, images.trained, batch, total)
    if run.main:
        run.print_line(preflight(images, sampler))
    batches = local_batches(images.trained, sampler, config.views, config.seed)
    yield from train_steps(run, method, batches, config=config, batch=batch, total=total)


def preflight(images: LabelledImages, sampler: PKSampler) -> str:
    """Describe an epoch as a table in plain text, at most 80 columns wide."""
    source, labels = images.trained, images.labels
    counts = census(sampler, labels)
    names = ", ".join(source.classes[label] for label in sampler.singles[:3])
    more = "..." if len(sampler.singles) > 3 else ""
    left_out = f"{len(sampler.singles)} with one image: {names}{more}" if names else "none"
    rows = {
        "epoch": f"{counts.steps} batches of {sampler.p} classes x {sampler.k} images",
        "images": f"{counts.images}; {counts.unseen} never seen, {counts.repeated} places repeated",
        "classes": f"{len(source.classes)}; left out: {left_out}",
        "held out": "",
        "anchors": f"{counts.anchors} valid in a batch of {sampler.p * sampler.k}",
        "positives": f"{counts.positives} per anchor",
        "negatives": f"{counts.negatives} per anchor",
    }
    if images.held_out is not None:
        held = len(images.held_out.classes), len(images.held_out)
        rows["held out"] = f"{held[0]} more classes of {held[1]} images, to validate on"
    return "\n".join(f"  {name:<11}{value}"[:80] for name, value in rows.items() if value)
