"""Screening: throw out candidates that cannot be copies, at 5 microseconds a pair.

A coarse form of alignment.py: one linear step on 16 x 16 blurred pixels. Everything of the first
image is computed once, so that a pair costs two products with the pixels of the second.

Shape letters: n images, p pairs, m pixels inside the border.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.data.alignment import blur_matrix, laplacian, slopes
from selfsup.data.thumbnails import SIDE

LARGEST = 0.12  # residual as a fraction of the contrast; below it for 98 % of planted copies
LENIENT = 1.5  # times LARGEST, for the first direction
KEPT = 6  # pairs of an image
BLUR = 1.6  # pixels of the thumbnail
BORDER = 2  # coarse pixels that are left out: a shift brings in others
CHUNK_IMAGES, CHUNK_PAIRS = 4096, 4096


def screen(brightness: Tensor, pairs: Tensor) -> Tensor:
    """Keep the pairs of which one image predicts the other. uint8 [n, s, s], [p, 2] -> [k, 2].

    Of an image with many such pairs those with the smallest residuals are kept, so that in a set of
    pictures of one kind too, the work that follows grows with the number of images.
    """
    matrix = F.avg_pool1d(blur_matrix(SIDE, BLUR).T[None], 2)[0].T  # [16, 32]
    chunks = brightness.split(CHUNK_IMAGES)
    coarse = torch.cat([matrix @ chunk.float() @ matrix.T for chunk in chunks])
    forth = _residuals(coarse, pairs[:, 0], pairs[:, 1])
    possible = forth <= LENIENT * LARGEST  # the other direction may be the better one
    pairs, forth = pairs[possible], forth[possible]
    residual = torch.minimum(forth, _residuals(coarse, pairs[:, 1], pairs[:, 0]))
    close = residual <= LARGEST
    return _best_of_each(pairs[close], residual[close])


def _best_of_each(pairs: Tensor, residual: Tensor) -> Tensor:
    """Keep pairs that are among the best KEPT of one of their images."""
    order = residual.argsort(stable=True)
    pairs = pairs[order]
    keep = torch.zeros(len(pairs), dtype=torch.bool)
    for column in (0, 1):
        by_image = pairs[:, column].argsort(stable=True)
        images = pairs[by_image, column]
        first = torch.searchsorted(images, images)  # where the pairs of this image begin
        keep[by_image] |= torch.arange(len(images)) - first < KEPT
    return pairs[keep]


def _residuals(coarse: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Predict each second image from the first by gain, offset, motion and blur."""
    result = torch.zeros(len(first))
    for rows in first.argsort().split(CHUNK_PAIRS):
        distinct, place = first[rows].unique(return_inverse=True)
        fields = _fields(coarse[distinct])  # [distinct, 6, m]
        penalty = torch.diag(torch.tensor([0.1, 0.1, 10, 10, 10, 10]))
        solved = torch.linalg.solve(fields @ fields.transpose(1, 2) + penalty, fields)
        y = _inner(coarse[second[rows]])  # [chunk, m]
        explained = ((fields[place] @ y[..., None]) * (solved[place] @ y[..., None])).sum((1, 2))
        contrast = (y - y.mean(1, keepdim=True)).square().sum(1).clamp(min=1)
        result[rows] = ((y.square().sum(1) - explained).clamp(min=0) / contrast).sqrt()
    return result


def _fields(x: Tensor) -> Tensor:
    """The image, 1, its derivatives for shift and zoom, and the second derivative."""
    axis = (torch.arange(x.shape[-1]) + 0.5 - x.shape[-1] / 2) / 4
    across, down = slopes(x)
    zoom = across * axis + down * axis[:, None]
    fields = (x, torch.ones_like(x), across, down, zoom, laplacian(x))
    return torch.stack([_inner(field) for field in fields], 1)


def _inner(x: Tensor) -> Tensor:
    return x[:, BORDER:-BORDER, BORDER:-BORDER].flatten(1)
