"""Pieces of tools/gpu_check.py: losses, views and extraction on a GPU beside their peers'."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from gpu_figures import DEVICE, Figure, Piece, at_least, cost, run_pieces
from torch import Tensor

WIDTH = 128


def backward(loss: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[], None]:
    """Forward and backward of random rows."""
    g = torch.Generator().manual_seed(0)
    leaves = [torch.randn(s, generator=g).to(DEVICE).requires_grad_() for s in shapes]

    def work() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return work


def classes_of(n: int, each: int = 4) -> Tensor:
    """Labels of n rows in classes of `each`."""
    return torch.arange(n // each, device=DEVICE).repeat_interleave(each)


def pairs_of_losses(n: int) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Ours and a peer's, of n rows or n images in two views."""
    from lightly.loss import DCLLoss, NTXentLoss
    from pytorch_metric_learning import losses, miners

    from selfsup.losses.contrastive import dcl, nt_xent
    from selfsup.losses.measures import Distance
    from selfsup.losses.similarity import supcon
    from selfsup.losses.triplet import triplet_margin
    from selfsup.mining.distances import batch_hard

    y, d, two, one = classes_of(n), Distance(), ((n, WIDTH), (n, WIDTH)), ((n, WIDTH),)
    theirs = NTXentLoss(0.1), DCLLoss(0.1), losses.SupConLoss(0.1), losses.TripletMarginLoss(0.2)
    hard = miners.BatchHardMiner()

    def triplets(x: Tensor) -> Tensor:
        found = batch_hard(x, y, distance=d)
        return triplet_margin(x, found, distance=d, margin=0.2, active_only=True)

    return {
        "NT-Xent": (
            backward(partial(nt_xent, temperature=0.1), *two),
            backward(theirs[0], *two),
        ),
        "DCL": (backward(partial(dcl, temperature=0.1), *two), backward(theirs[1], *two)),
        "SupCon": (
            backward(lambda x: supcon(x, y, temperature=0.1), *one),
            backward(lambda x: theirs[2](x, y), *one),
        ),
        "batch-hard": (
            backward(triplets, *one),
            backward(lambda x: theirs[3](x, y, hard(x, y)), *one),
        ),
    }


def losses(piece: Piece) -> list[Figure]:
    """Time and memory of losses beside lightly and pytorch-metric-learning, and by block size."""
    from selfsup.losses import row_blocks, symmetric

    warnings.simplefilter("ignore")
    rounds = 3 if piece.small else 30
    figures = []
    for n in (64,) if piece.small else (256, 512, 4096):
        for name, (ours, peer) in pairs_of_losses(n).items():
            mine, their = cost(ours, rounds), cost(peer, rounds)
            figures.append(Figure(f"{name} {n}", mine.ms, f"ms, {mine.megabytes:.0f} MB"))
            memory = f"x faster than the peer's {their.ms:.3g} ms, {their.megabytes:.0f} MB"
            figures.append(at_least(f"{name} {n}, ratio", their.ms / mine.ms, 1.0, memory))
    n = 64 if piece.small else 4096
    for block, side in ((1 << 17, 768), (1 << 22, 2048), (1 << 26, 8192)):
        with (
            patch.object(row_blocks, "block_size", lambda _, block=block: block),
            patch.object(symmetric, "block_rows", lambda _, side=side: side),
        ):
            for name, (ours, _) in pairs_of_losses(n).items():
                mine = cost(ours, rounds)
                memory = f"ms, {mine.megabytes:.0f} MB"
                figures.append(Figure(f"{name} {n}, block {block}, side {side}", mine.ms, memory))
    for block in (1 << 17, 1 << 22, 1 << 26):
        with patch.object(row_blocks, "block_size", lambda _, block=block: block):
            mine = cost(prototypes(piece.small), 3)
        figures.append(Figure(f"DINO at paper size, block {block}", mine.ms, "ms"))
    return figures


def prototypes(small: bool) -> Callable[[], None]:
    """DINO's loss of 1,024 images in ten views against 65,536 prototypes."""
    from selfsup.losses.clustering import dino

    n, k, d = (8, 32, 16) if small else (1024, 65536, 256)
    g = torch.Generator().manual_seed(0)
    teachers = torch.randn(n, 2, d, generator=g).to(DEVICE)
    layers = torch.randn(2, k, d, generator=g).to(DEVICE)
    centre = torch.zeros(k, device=DEVICE)

    def loss(students: Tensor) -> Any:
        rows = students, layers[0], teachers, layers[1], centre
        return dino(*rows, temperature=0.1, teacher_temperature=0.04)

    return backward(loss, (n, 10, d))


def views(piece: Piece) -> list[Figure]:
    """Two SimCLR views of each image on the device, beside kornia's."""
    import kornia.augmentation as ka

    from selfsup.augment.apply import apply_in_torch
    from selfsup.augment.draws import draw
    from selfsup.config import ViewsConfig

    n, size, rounds = (4, 32, 2) if piece.small else (512, 224, 10)
    config = ViewsConfig(size=size, strength=0.5)
    (draws,) = draw(config, n, seed=0, step=0)
    g = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (n, 2, 3, size, size), dtype=torch.uint8, generator=g).to(DEVICE)
    side = size // 10 | 1
    peer = ka.AugmentationSequential(
        ka.RandomHorizontalFlip(),
        ka.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        ka.RandomGrayscale(p=0.2),
        ka.RandomGaussianBlur((side, side), (0.1, 2.0), p=0.5),
        ka.Normalize(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])),
    ).to(DEVICE)
    mine = cost(lambda: apply_in_torch(crops, draws, config), rounds)
    drawing = cost(lambda: draw(config, n, seed=0, step=0), rounds)
    theirs = cost(lambda: [peer(crops[:, i].float() / 255) for i in range(2)], rounds)
    size_text = f"{n} images, two views of {size}"
    return [
        Figure(f"ours, {size_text}", mine.ms, f"ms, {mine.megabytes:.0f} MB"),
        Figure("drawing, on the CPU", drawing.ms, "ms"),
        Figure(f"kornia, {size_text}", theirs.ms, f"ms, {theirs.megabytes:.0f} MB"),
        at_least("kornia / ours", theirs.ms / mine.ms, 1.0),
    ]


def extraction(piece: Piece) -> list[Figure]:
    """Images a second of feature extraction, beside the encoder alone on images that are there."""
    import time

    import numpy as np

    from selfsup.config import EncoderConfig, ViewsConfig
    from selfsup.data.sources import ArraySource
    from selfsup.encoders.encoder import build
    from selfsup.evaluate.features import extract

    n, size, name = (64, 32, "test_resnet") if piece.small else (20_000, 96, "resnet50")
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    encoder = build(EncoderConfig(name=name), size).to(DEVICE).eval()
    source, views = ArraySource(pixels, None, []), ViewsConfig(size=size, crop=1.0)
    extract(encoder, ArraySource(pixels[:512], None, []), views, device=DEVICE)
    figures = []
    for workers in (0,) if piece.small else (0, 8):
        began = time.perf_counter()
        extract(encoder, source, views, device=DEVICE, workers=workers)
        rate = n / (time.perf_counter() - began)
        figures.append(Figure(f"{name} at {size}, {workers} workers", rate, "images/s"))
    x = torch.rand(256, 3, size, size, device=DEVICE)
    with torch.inference_mode():
        alone = 256 / cost(lambda: encoder(x), 5).ms * 1e3
    figures.append(Figure("the encoder alone", alone, "images/s"))
    best = max(float(f.value) for f in figures[:-1])
    return [*figures, at_least("share of it", best / alone, 0.7)]


if __name__ == "__main__":
    run_pieces({"losses": losses, "views": views, "extraction": extraction})
