"""The colours of views in one loop for each image, compiled by numba, for a CPU.

The same definitions as `colour.py` and `blur.py`, pixel by pixel; channels lie apart, so that the
compiler works on sixteen pixels at once.

Shape letters: m views, s side, r taps on one side.
"""

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.blur import taps
from selfsup.augment.colour import BRIGHTNESS, CONTRAST, LUMA, SATURATION
from selfsup.augment.draws import Draws
from selfsup.config import ViewsConfig
from selfsup.core.compiled import kernel
from selfsup.core.threads import run_blocks

RED, GREEN, BLUE = (np.float32(weight) for weight in LUMA)
ZERO, ONE, SIX, TINY = (np.float32(x) for x in (0, 1, 6, 1e-12))
SIXTH, THIRD, HALF, TWO_THIRDS = (np.float32(x) for x in (1 / 6, 1 / 3, 1 / 2, 2 / 3))
MIDDLE, LEVELS = np.float32(128 / 255), np.float32(255)


def fused(crops: Tensor, draws: Draws, config: ViewsConfig) -> Tensor:
    """`apply` for uint8 [b, v, 3, s, s] on the CPU without rare changes."""
    flat, d = crops.flatten(0, 1).contiguous(), draws.flat()
    side = flat.shape[-1]
    moments = torch.tensor([config.mean, config.std], dtype=torch.float32)
    out = torch.empty(flat.shape, dtype=torch.float32)
    chosen = torch.cat([d.flip, d.jitter, d.grey, d.blur, d.solarize], 1)
    amounts = torch.cat([d.brightness, d.contrast, d.saturation, d.hue], 1)
    fields = (flat, chosen, d.order[:, 0].contiguous(), amounts, taps(d.sigma[:, 0], side), out)
    arrays = [field.numpy() for field in fields]
    run_blocks(len(flat), lambda part: _views(*(a[part] for a in arrays), moments.numpy()))
    return out.view(crops.shape)


@kernel
def _views(crops, chosen, order, amounts, weights, out, moments):  # type: ignore[no-untyped-def]
    """Every change of each view, in the order of `composed`, written to `out`."""
    m, _, side, _ = crops.shape
    room = np.empty((side, side), np.float32)
    wide = np.empty(side + 2 * weights.shape[1], np.float32)
    for i in range(m):
        for c in range(3):
            for y in range(side):
                row, to = crops[i, c, y], out[i, c, y]
                if chosen[i, 0]:
                    for x in range(side):
                        to[x] = np.float32(row[np.uintp(side - 1 - x)]) / LEVELS
                else:
                    for x in range(side):
                        to[x] = np.float32(row[x]) / LEVELS
        r = out[i, 0].reshape(-1)
        g = out[i, 1].reshape(-1)
        b = out[i, 2].reshape(-1)
        if chosen[i, 1]:
            for turn in range(4):
                which = order[i, turn]
                by = amounts[i, which]
                if which == BRIGHTNESS:
                    _blend(r, g, b, by, ZERO, ZERO)
                elif which == CONTRAST:
                    _blend(r, g, b, by, ZERO, (ONE - by) * _mean(r, g, b))
                elif which == SATURATION:
                    _blend(r, g, b, by, ONE - by, ZERO)
                else:
                    _turn_hue(r, g, b, by)
        if chosen[i, 2]:
            for p in range(len(r)):
                y = RED * r[p] + GREEN * g[p] + BLUE * b[p]
                r[p], g[p], b[p] = y, y, y
        if chosen[i, 3]:
            for c in range(3):
                _blur(out[i, c], weights[i], room, wide)
        if chosen[i, 4]:
            for c in range(3):
                plane = out[i, c].reshape(-1)
                for p in range(len(plane)):
                    plane[p] = ONE - plane[p] if plane[p] >= MIDDLE else plane[p]
        for c in range(3):
            plane = out[i, c].reshape(-1)
            scale = ONE / moments[1, c]
            shift = -moments[0, c] * scale
            for p in range(len(plane)):
                plane[p] = plane[p] * scale + shift


@kernel
def _cut(x):  # type: ignore[no-untyped-def]
    return min(max(x, ZERO), ONE)


@kernel
def _mean(r, g, b):  # type: ignore[no-untyped-def]
    """Of the grey image."""
    total = ZERO
    for p in range(len(r)):
        total += RED * r[p] + GREEN * g[p] + BLUE * b[p]
    return total / np.float32(len(r))


@kernel
def _blend(r, g, b, factor, grey, shift):  # type: ignore[no-untyped-def]
    """X * factor + grey image * grey + shift, cut to [0, 1], in place."""
    for p in range(len(r)):
        y = grey * (RED * r[p] + GREEN * g[p] + BLUE * b[p]) + shift
        r[p] = _cut(r[p] * factor + y)
        g[p] = _cut(g[p] * factor + y)
        b[p] = _cut(b[p] * factor + y)


@kernel
def _turn_hue(r, g, b, turn):  # type: ignore[no-untyped-def]
    """The colour wheel turned, in place."""
    for p in range(len(r)):
        high = max(r[p], max(g[p], b[p]))
        low = min(r[p], min(g[p], b[p]))
        chroma = SIX * (high - low)
        per = ONE / max(chroma, TINY)
        at_blue = TWO_THIRDS + (r[p] - g[p]) * per
        at_green = THIRD + (b[p] - r[p]) * per
        at_red = (g[p] - b[p]) * per
        hue = turn + (at_red if high == r[p] else (at_green if high == g[p] else at_blue))
        hue -= np.floor(hue)
        below, above = low - SIXTH * chroma, low + THIRD * chroma
        r[p] = below + chroma * min(max(abs(hue - HALF), SIXTH), THIRD)
        g[p] = above - chroma * min(max(abs(hue - THIRD), SIXTH), THIRD)
        b[p] = above - chroma * min(max(abs(hue - TWO_THIRDS), SIXTH), THIRD)


@kernel
def _blur_3(x, weight, to):  # type: ignore[no-untyped-def]
    """Three taps sideways, all rows as one; what ran over a border is done again."""
    values, sums = x.reshape(-1), to.reshape(-1)
    middle, one, other = values[1:-1], values[:-2], values[2:]
    inner = sums[1:-1]
    for p in range(len(inner)):
        inner[p] = weight[0] * middle[p] + weight[1] * (one[p] + other[p])
    for y in range(len(x)):
        to[y, 0] = weight[0] * x[y, 0] + 2 * weight[1] * x[y, 1]
        to[y, -1] = weight[0] * x[y, -1] + 2 * weight[1] * x[y, -2]


@kernel
def _blur(x, weight, room, wide):  # type: ignore[no-untyped-def]
    """Sideways, then downwards, with mirrored borders, in place; the rest is scratch.

    Two taps of each side at a time: half the passes over a row.
    """
    side, far = len(x), len(weight)
    while far > 2 and weight[far - 1] == ZERO:
        far -= 1
    edge, last = far - 1, 2 * (side - 1)
    if far == 2:
        _blur_3(x, weight, room)
    for y in range(side if far > 2 else 0):
        row, to = x[y], room[y]
        for q in range(side):
            wide[edge + q] = row[q]
        for q in range(1, far):
            wide[edge - q] = row[q]
            wide[edge + side - 1 + q] = row[side - 1 - q]
        one, other = wide[edge - 1 :], wide[edge + 1 :]
        for q in range(side):
            to[q] = weight[0] * row[q] + weight[1] * (one[q] + other[q])
        for j in range(2, far, 2):
            near, beyond = weight[j], weight[j + 1] if j + 1 < far else ZERO
            k = min(j + 1, edge)
            a, b, c, d = wide[edge - j :], wide[edge + j :], wide[edge - k :], wide[edge + k :]
            for q in range(side):
                to[q] += near * (a[q] + b[q]) + beyond * (c[q] + d[q])
    for y in range(side):
        row, to = room[y], x[y]
        one, other = room[abs(y - 1)], room[min(y + 1, last - y - 1)]
        for q in range(side):
            to[q] = weight[0] * row[q] + weight[1] * (one[q] + other[q])
        for j in range(2, far, 2):
            near, beyond = weight[j], weight[j + 1] if j + 1 < far else ZERO
            k = min(j + 1, edge)
            a, b = room[abs(y - j)], room[min(y + j, last - y - j)]
            c, d = room[abs(y - k)], room[min(y + k, last - y - k)]
            for q in range(side):
                to[q] += near * (a[q] + b[q]) + beyond * (c[q] + d[q])
