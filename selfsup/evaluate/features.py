"""Features: frozen embeddings of every image of a source, once each, in order.

Shape letters: n images, b of a batch, s side in pixels, d width.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from selfsup.augment.apply import apply, standardize
from selfsup.augment.boxes import CropSpec
from selfsup.augment.draws import draw
from selfsup.config import ViewsConfig
from selfsup.config.pipelines import SIMCLR
from selfsup.core.distributed import (
    gather_objects,
    gather_uneven,
    local_slice,
    share_from_main,
    world,
)
from selfsup.core.errors import UserError
from selfsup.core.labels import class_labels
from selfsup.core.stopping import in_reader
from selfsup.core.transfers import send
from selfsup.data.audit import image_digest
from selfsup.data.loader import default_workers
from selfsup.data.readers import begin
from selfsup.data.sources import Source, all_unreadable
from selfsup.encoders.evaluation_view import center_boxes

AHEAD = {"cuda": 1}  # chunks that a device has begun when the features of one are fetched; else 0
ROUNDING = 2e-3
"""Largest error of a row on disk, as a fraction of its length: float16 has three digits."""
FEW_CHUNKS = 4  # for so few of arrays it takes longer to start readers


class Features(NamedTuple):
    """Embeddings of a source's images, with their labels."""

    x: Tensor
    """float32 [n, d], on the CPU."""
    labels: Tensor
    """int64 [n]; -1 where there are none."""
    positions: Tensor
    """int64 [n], of the images in the source, ascending."""
    classes: Sequence[str]
    """The name of each label."""
    bad: int
    """Images left out because they could not be read."""

    def select(self, rows: Sequence[int]) -> "Features":
        """Keep only these rows."""
        rows = list(rows)
        return self._replace(
            x=self.x[rows], labels=self.labels[rows], positions=self.positions[rows]
        )

    def class_names(self) -> list[str]:
        """Names of the classes that have an image here, in the order of their numbers."""
        return [self.classes[label] for label in self.labels.unique().tolist() if label >= 0]

    def with_classes(self, classes: Sequence[str]) -> "Features":
        """Number labels by another source's classes; classes that it lacks come after them.

        Raises:
            ValueError: two classes have one name, so that names do not say which is which.
        """
        if list(classes) == list(self.classes):
            return self
        for names in (classes, self.classes):
            doubled = sorted({name for name in names if names.count(name) > 1})
            if doubled:
                raise ValueError(
                    f"{len(doubled)} names stand for two classes each, such as {doubled[0]!r}: "
                    "classes of two sets are matched by name, so give each a name of its own"
                )
        numbers = {name: label for label, name in enumerate(classes)}
        new = torch.tensor([numbers.setdefault(name, len(numbers)) for name in self.classes])
        labels = torch.where(self.labels < 0, -1, new[self.labels])
        return self._replace(labels=labels, classes=list(numbers))


class Chunk(NamedTuple):
    """Features of some images that were embedded together."""

    positions: range
    features: Tensor
    """float32 [b, d], on the CPU; of an unreadable image those of another."""
    bad: dict[int, str]
    """Position of each unreadable image, and why."""
    digests: list[str]
    """sha256 of each image, "" of an unreadable one; empty where they were not wanted."""


class _Chunks(Dataset[tuple[Tensor, dict[int, str], list[str]]]):
    """The evaluation views of each chunk of positions."""

    def __init__(
        self, source: Source, chunks: Sequence[range], views: ViewsConfig, *, digests: bool
    ) -> None:
        self.source = source
        self.chunks = chunks
        self.views = views
        self.digests = digests

    def __getitem__(self, i: int) -> tuple[Tensor, dict[int, str], list[str]]:
        chunk = self.chunks[i]
        boxes = center_boxes(len(chunk), self.views)
        cut = CropSpec(boxes, self.views.size, self.views.resampling)
        crops = self.source.crops(chunk, cut)
        bad = {position: why for position, why in crops.bad.items() if position in chunk}
        hashed = chunk if self.digests else range(0)
        digests = ["" if p in bad else image_digest(self.source, p) for p in hashed]
        return crops.images[0][:, 0], bad, digests


def extract(
    encoder: nn.Module,
    source: Source,
    views: ViewsConfig,
    *,
    device: torch.device,
    batch: int = 256,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
    part: tuple[int, int] | None = None,
) -> Features:
    """Embed every image of a source once, each process its slice.

    The encoder is put in evaluation mode and left as it was, buffers included; but of several
    processes all take the buffers of the main one: while a run trains, running statistics are of
    each process's own images. Images that cannot be read are left out and counted.

    Args:
        encoder: images to features.
        source: the images.
        views: size, normalisation and interpolation.
        device: of the encoder.
        batch: images at a time.
        workers: processes that read images; by default `default_workers`.
        progress: called with the number of images after each batch.
        part: (rank, processes), by default those there are; (0, 1) embeds all images here, while
            other processes do something else.

    Raises:
        UserError: no image can be read, or a feature is not finite.
    """
    rank, processes = world() if part is None else part
    if part is None:
        share_from_main(list(encoder.buffers()))
    chunks = chunks_of(source, batch)
    local = chunks[local_slice(len(chunks), rank, processes)]
    rows, bad = [], set[int]()
    for chunk in embed_chunks(encoder, source, local, views, device=device, workers=workers):
        rows.append(chunk.features)
        bad |= chunk.bad.keys()
        progress(len(chunk.positions))
    if processes == 1:
        x = torch.cat(rows)
    else:
        width = max(gather_objects(rows[0].shape[1] if rows else 0))
        x = gather_uneven(torch.cat(rows) if rows else torch.zeros(0, width))
        bad = set().union(*gather_objects(bad))
    return _labelled(x, source, bad)


def chunks_of(source: Source, batch: int = 256) -> list[range]:
    """Split the positions of a source into chunks, which processes take whole.

    Convolutions round by what else is in the batch, so that features do not depend on the number of
    processes.
    """
    return [range(i, min(i + batch, len(source))) for i in range(0, len(source), batch)]


def embed_chunks(
    encoder: nn.Module,
    source: Source,
    chunks: Sequence[range],
    views: ViewsConfig,
    *,
    device: torch.device,
    workers: int | None = None,
    digests: bool = False,
) -> Iterator[Chunk]:
    """Yield each chunk with its features, and with the sha256 of its images if `digests`.

    See `extract`. Random states are left as they were.
    """
    gpu = device.type == "cuda"
    if workers is None:
        few = source.in_memory and len(chunks) <= FEW_CHUNKS
        workers = 0 if few else default_workers(in_memory=source.in_memory, gpu=gpu)
        workers = min(workers, len(chunks))
    loader = DataLoader(
        _Chunks(source, chunks, views, digests=digests),
        sampler=range(len(chunks)),
        batch_size=None,
        num_workers=workers,
        pin_memory=gpu,
        worker_init_fn=in_reader,
        generator=torch.Generator(),  # else it draws a seed from the process's
    )
    # features of a chunk come to the CPU after the next is on its way, so that a GPU works on
    started: deque[Chunk] = deque()
    with untouched(encoder):
        for chunk, (images, bad, hashes) in zip(chunks, begin(loader), strict=True):
            with torch.inference_mode():
                levels = send(images, device)
                x = standardize(levels.float() / 255, *views.normalization)
                started.append(Chunk(chunk, encoder(x).float(), bad, hashes))
            if len(started) <= AHEAD.get(device.type, 0):
                continue
            yield _on_cpu(started.popleft())
        while started:
            yield _on_cpu(started.popleft())


def _on_cpu(chunk: Chunk) -> Chunk:
    return chunk._replace(features=chunk.features.cpu())


def _labelled(x: Tensor, source: Source, bad: set[int]) -> Features:
    """Leave out the rows of bad images and add the labels of the others.

    Raises:
        UserError: all images are bad, or a feature is not finite.
    """
    good = torch.tensor([i for i in range(len(source)) if i not in bad], dtype=torch.int64)
    if len(good) == 0:
        raise UserError(all_unreadable(source))
    check_finite(x[good])
    labels = torch.full((len(source),), -1) if source.labels is None else source.labels
    return Features(x[good], labels[good], good, source.classes, len(bad))


def check_finite(x: Tensor) -> None:
    """Refuse features [n, d] of which some are not finite.

    Raises:
        UserError: how many images have such features.
    """
    broken = int((~x.isfinite().all(1)).sum())
    if broken:
        raise UserError(
            f"features of {broken} of {len(x)} images are not finite: the weights are broken, or "
            "images are far from what they were trained for"
        )


def rounds_badly(x: Tensor, kind: np.dtype) -> bool:
    """Whether a type on disk rounds a row of features [n, d] by more than `ROUNDING`."""
    with np.errstate(over="ignore"):
        stored = torch.from_numpy(x.numpy().astype(kind)).to(x.dtype)
    return bool(((stored - x).norm(dim=1) > ROUNDING * x.norm(dim=1)).any())


def extract_views(
    encoder: nn.Module,
    source: Source,
    views: ViewsConfig,
    *,
    positions: Sequence[int],
    views_each: int,
    seed: int,
    batch: int = 64,
) -> Tensor:
    """Embed several random views of each image, as contrastive pretraining would see it.

    The views are SimCLR's, at the size and with the normalisation of `views`. [n, v, d], on the
    CPU.
    """
    random_views = replace(
        SIMCLR,
        views=views_each,
        size=views.size,
        mean=views.mean,
        std=views.std,
        interpolation=views.interpolation,
    )
    (draws,) = draw(random_views, len(positions), seed=seed, step=0)
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    rows = []
    with torch.inference_mode(), untouched(encoder):
        for start in range(0, len(positions), batch):
            which = slice(start, min(start + batch, len(positions)))
            draws_of_batch = draws.rows(which)
            crops = source.crops(
                positions[which], CropSpec(draws_of_batch.boxes, views.size, views.resampling)
            )
            images = apply(
                crops.images[0].to(device), draws_of_batch, random_views
            )  # [b, v, c, s, s]
            rows.append(encoder(images.flatten(0, 1)).float().cpu().unflatten(0, images.shape[:2]))
    return torch.cat(rows)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and check afterwards that no buffer was written to."""
    modes = [(m, m.training) for m in module.modules()]
    versions = {name: buffer._version for name, buffer in module.named_buffers()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
    changed = [n for n, buffer in module.named_buffers() if buffer._version != versions[n]]
    assert not changed, f"evaluation wrote to buffers: {changed}"


def split_rows(labels: Tensor, *, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows into those to fit on and those to hold out.

    `fraction` of each class is held out, one image at least where the class has two.
    """
    shuffle = np.random.default_rng(seed)
    labels = class_labels(labels)
    held_out = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0].numpy()
        count = min(len(rows) - 1, max(1, round(fraction * len(rows))))
        held_out.append(shuffle.permutation(rows)[:count])
    out = torch.from_numpy(np.sort(np.concatenate(held_out)))
    fitted = torch.ones(len(labels), dtype=torch.bool)
    fitted[out] = False
    return fitted.nonzero()[:, 0], out
