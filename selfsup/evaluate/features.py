"""Features: frozen embeddings of every image of a source, once each, in order.

Shape letters: n images, b of a batch, s side in pixels, d width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from selfsup.augment.apply import standardize
from selfsup.boxes import CenterBoxes, Cut
from selfsup.config import ViewsConfig
from selfsup.data.sources import Source
from selfsup.distributed import gather_objects, gather_uneven, share, world
from selfsup.encoder import crop_share
from selfsup.errors import UserError


class Features(NamedTuple):
    """What an encoder makes of a source."""

    x: Tensor
    """float32 [n, d], on the CPU."""
    labels: Tensor
    """int64 [n]."""
    positions: Tensor
    """int64 [n], of the images in the source, ascending."""
    classes: Sequence[str]
    """The name of each label."""
    bad: int
    """Images left out because they could not be read."""

    def with_classes(self, classes: Sequence[str]) -> "Features":
        """The same, labelled by another source's classes; ones it does not have come after them."""
        known = {name: label for label, name in enumerate(classes)}
        new = [known.setdefault(name, len(known)) for name in self.classes]
        return self._replace(labels=torch.tensor(new)[self.labels], classes=list(known))


class _Chunks(Dataset[tuple[Tensor, dict[int, str]]]):
    """The evaluation view of chunk i of some positions."""

    def __init__(
        self, source: Source, positions: list[int], views: ViewsConfig, batch: int
    ) -> None:
        self.source = source
        self.chunks = [positions[i : i + batch] for i in range(0, len(positions), batch)]
        self.views = views

    def __getitem__(self, i: int) -> tuple[Tensor, dict[int, str]]:
        chunk = self.chunks[i]
        boxes = CenterBoxes(len(chunk), crop_share(self.views.size))
        cut = Cut(boxes, self.views.size, self.views.interpolation)
        crops = self.source.crops(chunk, cut)
        return crops.images[0][:, 0], crops.bad


def extract(
    encoder: nn.Module,
    source: Source,
    views: ViewsConfig,
    *,
    device: torch.device,
    batch: int = 256,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """Embed every image of a labelled source, each process a share, none twice.

    The encoder is in evaluation mode meanwhile and is left as it was, buffers included. Images
    that cannot be read are left out and counted.

    Raises:
        UserError: the source has no labels, or no image can be read.
    """
    if source.labels is None:
        raise UserError("these images have no labels; evaluation needs them")
    rank, processes = world()
    mine = range(len(source))[share(len(source), rank, processes)]
    chunks = _Chunks(source, list(mine), views, batch)
    if workers is None:
        workers = 0 if source.in_memory else 2
    loader = DataLoader(
        chunks, sampler=range(len(chunks.chunks)), batch_size=None, num_workers=workers
    )
    rows, bad = [], set()
    with torch.inference_mode(), untouched(encoder):
        for images, unreadable in loader:
            x = standardize(images.to(device).float() / 255, views.mean, views.std)
            rows.append(encoder(x).float().cpu())
            bad |= set(unreadable)
            progress(len(images))
    width = max(gather_objects(rows[0].shape[1] if rows else 0))
    x = gather_uneven(torch.cat(rows) if rows else torch.zeros(0, width), device)
    bad = set().union(*gather_objects(bad))
    good = torch.tensor([i for i in range(len(source)) if i not in bad], dtype=torch.int64)
    if len(good) == 0:
        raise UserError(f"none of the {len(source)} images can be read")
    return Features(x[good], source.labels[good], good, source.classes, len(bad))


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and proof afterwards that no buffer was written to."""
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


class Pixels(nn.Module):
    """The raw-pixel baseline: an image is its own feature, at most 32 x 32."""

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, s, s] -> [b, 3 * min(s, 32)^2]."""
        if images.shape[-1] > 32:
            images = nn.functional.interpolate(
                images, size=(32, 32), mode="bilinear", antialias=True, align_corners=False
            )
        return images.flatten(1)


def split_rows(labels: Tensor, *, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to keep and rows to hold out: `share` of each class, one at least where it has two."""
    shuffle = np.random.default_rng(seed)
    held = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0].numpy()
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        held.append(shuffle.permutation(rows)[:count])
    out = torch.from_numpy(np.sort(np.concatenate(held)))
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[out] = False
    return kept.nonzero()[:, 0], out
