"""Alignment: whether two thumbnails are the same picture, decided on their pixels.

The second picture is predicted from the first by all that a copy may have gone through: a shift of
up to 2.5 of 32 pixels, a crop of up to 4 % at each border, another brightness and contrast, cut off
at black and white, blur or sharpening. What the prediction misses is the residual. It has to be
small in three ways, of which a worked example, in levels of 255:

    an image has a contrast (standard deviation) of 60 levels, its copy a residual of 3 on average:
    total = 3 / 60 = 0.05
    in one window of 5 x 5 pixels the contrast is 12 and the residual 5: local = 5 / (12 + 8) = 0.25
    colours differ by 2 levels on average, where they have 20: colour = 2 / (20 + 16) = 0.06

Shape letters: p pairs, s side of the thumbnails.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.data.thumbnails import Thumbnails

CHUNK_PAIRS = 128
SCALES = (1.6, 1.0)  # widths of the blur, in pixels, of the steps of registration
SMOOTH = 1.0  # of the final comparison: noise of one pixel is no difference
SHIFT, ZOOM = 2.5, 0.09  # largest, in pixels of the thumbnail and as a fraction of the size
SHARPEN = 0.6  # largest weight of the second derivative, for blur or sharpening
GAIN = 1.15  # largest factor of contrast between two copies
LIGHTER = 32  # largest difference of mean brightness, in levels
SHAPES_APART = 6  # largest difference of width / height: 16 %
EVEN = 3.0  # contrast, in levels, below which an image has nothing to compare
WINDOW, WINDOW_LEVELS = 5, 8.0
COLOUR_LEVELS = 16.0
LENIENT = 2.0  # times the limits at the first look, which knows no cut-off at white
MARGIN = 3  # pixels at the border that registration leaves out


class Limits(NamedTuple):
    """Largest residuals of two copies of a picture."""

    total: float = 0.1
    """Residual as a fraction of the picture's contrast."""
    local: float = 0.4
    """Residual in any window of 5 x 5 pixels, of the contrast in there + 8 levels."""
    colour: float = 0.25
    """Difference of colours, of their mean strength + 16 levels."""

    def scaled(self, total: float) -> "Limits":
        """Limits with another `total`, the others changed in proportion."""
        return Limits(*(limit * total / self.total for limit in self))


class Residuals(NamedTuple):
    """How well one thumbnail predicts another; see the top of the file."""

    total: Tensor
    """[p]; infinite where gain, brightness or shape differ by more than a copy's."""
    local: Tensor
    colour: Tensor


def same_picture(thumbnails: Thumbnails, pairs: Tensor, limits: Limits) -> Tensor:
    """Which pairs of images are copies. int64 [p, 2] -> bool [p]."""
    same = torch.zeros(len(pairs), dtype=torch.bool)
    for rows in torch.arange(len(pairs)).split(CHUNK_PAIRS):
        a, b = (thumbnails.rows(pairs[rows, k]) for k in (0, 1))
        motion = register(*_levels(a, b))
        likely = _first_look(a, b, motion, limits).nonzero()[:, 0]
        if len(likely):
            r = residuals(a.rows(likely), b.rows(likely), motion[likely])
            within = (r.total <= limits.total) & (r.local <= limits.local)
            same[rows[likely]] = within & (r.colour <= limits.colour)
    return same


def residuals(first: Thumbnails, second: Thumbnails, motion: Tensor) -> Residuals:
    """Compare image by image, each predicted from the other; the better prediction counts."""
    a, b = _levels(first, second)
    moved, inside = _warp(a, motion), _inside(motion, a.shape[-1])
    forth, back = _predict(moved, b, inside), _predict(b, moved, inside)
    total, local = _better(forth, back)  # what is cut off at white cannot be predicted back
    apart = (first.shape.int() - second.shape.int()).abs() > SHAPES_APART
    total = total.masked_fill(apart, torch.inf)
    return Residuals(total, local, _colour(first.colour, second.colour, motion))


def _levels(first: Thumbnails, second: Thumbnails) -> tuple[Tensor, Tensor]:
    return first.brightness.float()[:, None], second.brightness.float()[:, None]


def _first_look(a: Thumbnails, b: Thumbnails, motion: Tensor, limits: Limits) -> Tensor:
    """Which pairs may be copies by the plainest prediction: most are not, and done with. [p]."""
    x, y = _levels(a, b)
    moved, inside = _warp(x, motion), _inside(motion, x.shape[-1])
    smooth_x, smooth_y = _blur(moved, SMOOTH), _blur(y, SMOOTH)
    columns = _columns(smooth_x)
    fit = _fit(columns, smooth_y, inside)
    r = _judge(moved, columns, smooth_y, fit, inside)
    return (r.total <= LENIENT * limits.total) & (r.local <= LENIENT * limits.local)


def register(a: Tensor, b: Tensor) -> Tensor:
    """Find shift and zoom that bring a to b, by Gauss-Newton steps from coarse to fine.

    Args:
        a: [p, 1, s, s] levels.
        b: likewise.

    Returns:
        [p, 3] shift along x and y in pixels, zoom as a fraction of the size.
    """
    side = a.shape[-1]
    axis = (torch.arange(side) + 0.5 - side / 2) / 8
    motion = torch.zeros(len(a), 3)
    ones = torch.ones(len(a), (side - 2 * MARGIN) ** 2)
    penalty = torch.diag(torch.tensor([0.1, 0.1, 20, 20, 20]))  # even images do not move
    for scale in SCALES:
        w, target = _warp(_blur(a, scale), motion), _inner(_blur(b, scale))
        dx, dy = slopes(w)
        fields = [_inner(f) for f in (w, dx, dy, dx * axis + dy * axis[:, None])]
        x = torch.stack([fields[0], ones, *fields[1:]], 1)  # [p, 5, pixels]
        gram = x @ x.transpose(1, 2) + penalty
        weights = torch.linalg.solve(gram, x @ target[..., None])[..., 0]
        step = weights[:, 2:] / weights[:, :1].clamp(min=0.3)
        motion = motion + step * torch.tensor([1, 1, 1 / 8])
        limit = torch.tensor([SHIFT, SHIFT, ZOOM])
        motion = torch.maximum(torch.minimum(motion, limit), -limit)
    return motion


class _Prediction(NamedTuple):
    total: Tensor
    local: Tensor


def _predict(x: Tensor, y: Tensor, inside: Tensor) -> _Prediction:
    """Predict y from x by gain, offset and sharpening; the better of two fits for each pair.

    The second fit leaves out what is black or white in y, as after a cut-off.
    """
    smooth_x, smooth_y = _blur(x, SMOOTH), _blur(y, SMOOTH)
    columns = _columns(smooth_x)
    cut = F.max_pool2d(((y < 3) | (y > 252)).float(), 3, stride=1, padding=1)
    fits = [_fit(columns, smooth_y, inside * some) for some in (torch.ones_like(cut), 1 - cut)]
    return _better(*(_judge(x, columns, smooth_y, fit, inside) for fit in fits))


def _better(a: _Prediction, b: _Prediction) -> _Prediction:
    """Choose for each pair by both residuals, each in units of its usual limit."""
    limits = Limits()
    scores = [torch.maximum(p.total / limits.total, p.local / limits.local) for p in (a, b)]
    chosen = scores[0] <= scores[1]
    return _Prediction(*(torch.where(chosen, x, y) for x, y in zip(a, b, strict=True)))


def _columns(smooth_x: Tensor) -> Tensor:
    """What a copy is made of: the image, 1, its second derivative. [p, s * s, 3]."""
    fields = (smooth_x, torch.ones_like(smooth_x), laplacian(smooth_x))
    return torch.stack([field.flatten(1) for field in fields], 1)


def _fit(columns: Tensor, smooth_y: Tensor, weight: Tensor) -> Tensor:
    """Weighted least squares, with a limit on sharpening. -> [p, 3]."""
    weighted = columns * weight.flatten(1)[:, None]
    gram = weighted @ columns.transpose(1, 2) + 0.1 * torch.eye(3)
    fit = torch.linalg.solve(gram, weighted @ smooth_y.flatten(1)[..., None])[..., 0]
    limit = SHARPEN * fit[:, 0].abs()
    sharpen = torch.maximum(torch.minimum(fit[:, 2], limit), -limit)
    return torch.cat([fit[:, :2], sharpen[:, None]], 1)


def _judge(
    x: Tensor, columns: Tensor, smooth_y: Tensor, fit: Tensor, inside: Tensor
) -> _Prediction:
    gain, offset, sharpen = fit.view(-1, 3, 1, 1, 1).unbind(1)
    derivative = columns[:, 2].reshape(x.shape)
    guess = _blur((gain * x + offset).clamp(0, 255), SMOOTH) + sharpen * derivative
    squares = (smooth_y - guess) ** 2 * inside
    count = inside.sum((1, 2, 3))
    contrast = torch.minimum(_deviation(smooth_y, inside), _deviation(guess, inside))
    total = (squares.sum((1, 2, 3)) / count).sqrt() / contrast.clamp(min=1e-3)
    windows = torch.maximum(_local_deviation(smooth_y), _local_deviation(guess)) + WINDOW_LEVELS
    local = (_windows(squares).sqrt() / windows).flatten(1).amax(1)
    means = [(z * inside).sum((1, 2, 3)) / count for z in (smooth_y, x)]
    factor = gain.flatten()
    copy = (factor > 1 / GAIN) & (factor < GAIN) & ((means[0] - means[1]).abs() < LIGHTER)
    return _Prediction(total.masked_fill(~copy | (contrast < EVEN), torch.inf), local)


def _colour(first: Tensor, second: Tensor, motion: Tensor) -> Tensor:
    """Compare the differences of colour, moved as the brightness is. [p]."""
    a, b = ((x.float() - 128) * 2 for x in (first, second))
    scale = a.shape[-1] / 32
    half = motion * torch.tensor([scale, scale, 1])
    moved = _warp(a, half)
    apart = _blur(moved - b, SMOOTH)
    strength = torch.maximum(moved.square().mean((1, 2, 3)), b.square().mean((1, 2, 3))).sqrt()
    inner = apart[..., 1:-1, 1:-1]
    return inner.square().mean((1, 2, 3)).sqrt() / (strength + COLOUR_LEVELS)


def _warp(a: Tensor, motion: Tensor) -> Tensor:
    """Sample each image at x * (1 + zoom) + shift, by a cubic kernel along each axis."""
    across, down = (_sampling(motion[:, k], motion[:, 2], a.shape[-1]) for k in (0, 1))
    return down[:, None] @ a @ across[:, None].transpose(2, 3)


def _sampling(shift: Tensor, zoom: Tensor, side: int) -> Tensor:
    """Weights of Keys' cubic convolution of each pixel, [p, side, side]; the border is repeated."""
    axis = torch.arange(side) + 0.5 - side / 2
    place = (axis * (1 + zoom[:, None]) + shift[:, None] + side / 2 - 0.5).clamp(0, side - 1)
    d = (place[..., None] - torch.arange(side)).abs()
    near, far = (1.5 * d - 2.5) * d * d + 1, ((2.5 - 0.5 * d) * d - 4) * d + 2
    weights = torch.where(d < 1, near, far * (d < 2))
    return weights / weights.sum(2, keepdim=True)


def _inside(motion: Tensor, side: int) -> Tensor:
    """Pixels that come from inside the first image, away from its border. Float [p, 1, s, s]."""
    axis = torch.arange(side) + 0.5 - side / 2
    within = [
        (axis.abs() < side / 2 - 1)
        & ((axis * (1 + motion[:, 2:]) + motion[:, k, None]).abs() < side / 2 - 1.5)
        for k in (0, 1)
    ]
    return (within[0][:, None, None, :] & within[1][:, None, :, None]).float()


def _blur(x: Tensor, width: float) -> Tensor:
    """Gaussian blur of [p, 1, s, s]; the border is repeated."""
    kernel = blur_matrix(x.shape[-1], width)
    return kernel @ x @ kernel.T


@lru_cache(maxsize=8)
def blur_matrix(side: int, width: float) -> Tensor:
    """Matrix that blurs a column of `side` pixels; the border is repeated."""
    radius = int(3 * width + 0.5)
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(steps**2) / (2 * width**2))
    places = (torch.arange(side)[:, None] + steps).clamp(0, side - 1)
    matrix = torch.zeros(side, side).scatter_add_(1, places, kernel.expand(side, -1).clone())
    return matrix / kernel.sum()


def _windows(x: Tensor) -> Tensor:
    """Mean of each window."""
    size = x.shape[-1] - WINDOW + 1
    starts = torch.arange(size)[:, None]
    columns = torch.arange(x.shape[-1])
    matrix = ((columns >= starts) & (columns < starts + WINDOW)).float() / WINDOW
    return matrix @ x @ matrix.T


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """First derivatives along x and y of [..., h, w]; 0 at the border."""
    across = F.pad(x[..., 2:] - x[..., :-2], (1, 1)) / 2
    return across, F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1)) / 2


def laplacian(x: Tensor) -> Tensor:
    """Second derivative of [..., h, w]; 0 at the border."""
    middle = x[..., 1:-1, 1:-1]
    across, along = x[..., 1:-1, 2:] + x[..., 1:-1, :-2], x[..., 2:, 1:-1] + x[..., :-2, 1:-1]
    return F.pad(across + along - 4 * middle, (1, 1, 1, 1))


def _inner(x: Tensor) -> Tensor:
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN].flatten(1)


def _deviation(x: Tensor, weight: Tensor) -> Tensor:
    count = weight.sum((1, 2, 3), keepdim=True)
    mean = (x * weight).sum((1, 2, 3), keepdim=True) / count
    return (((x - mean) ** 2 * weight).sum((1, 2, 3)) / count.flatten()).sqrt()


def _local_deviation(x: Tensor) -> Tensor:
    return (_windows(x * x) - _windows(x) ** 2).clamp(min=0).sqrt()
