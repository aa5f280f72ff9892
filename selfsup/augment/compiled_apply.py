"""The colours of views in one loop for each view, compiled by numba for a CPU.

The same definitions as `colour.py` and `blur.py`, pixel by pixel. Each channel is one run of
memory, so that the compiler works on sixteen pixels at once.

Shape letters: m views, s side, r radius of the blur's kernel.
"""

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.blur import kernel_weights
from selfsup.augment.colour import BRIGHTNESS, CONTRAST, LUMA, SATURATION
from selfsup.augment.draws import Draws
from selfsup.config import ViewsConfig
from selfsup.core.compiled import kernel
from selfsup.core.threads import run_blocks

RED, GREEN, BLUE = (np.float32(weight) for weight in LUMA)
ZERO, ONE, SIX, TINY = (np.float32(x) for x in (0, 1, 6, 1e-12))
SIXTH, THIRD, HALF, TWO_THIRDS = (np.float32(x) for x in (1 / 6, 1 / 3, 1 / 2, 2 / 3))
MIDDLE, LEVELS = np.float32(128 / 255), np.float32(255)


def apply_compiled(crops: Tensor, draws: Draws, config: ViewsConfig) -> Tensor:
    """`apply` for uint8 [b, v, 3, s, s] on the CPU, without rare changes."""
    flat, d = crops.flatten(0, 1).contiguous(), draws.flat()
    side = flat.shape[-1]
    moments = torch.tensor(config.normalization, dtype=torch.float32)
    out = torch.empty(flat.shape, dtype=torch.float32)
    chosen = torch.cat([d.flip, d.jitter, d.grey, d.blur, d.solarize], 1)
    amounts = torch.cat([d.brightness, d.contrast, d.saturation, d.hue], 1)
    weights = kernel_weights(d.sigma[:, 0], side)
    fields = (flat, chosen, d.order[:, 0].contiguous(), amounts, weights, out)
    arrays = [field.numpy() for field in fields]
    run_blocks(len(flat), lambda block: _views(*(a[block] for a in arrays), moments.numpy()))
    return out.view(crops.shape)


@kernel
def _views(crops, chosen, order, amounts, weights, out, moments):  # type: ignore[no-untyped-def]
    """Make every change of each view, in the order of `apply_in_torch`, and write it to `out`."""
    m, _, side, _ = crops.shape
    scratch = np.empty((side, side), np.float32)
    wide = np.empty(side + 2 * weights.shape[1], np.float32)
    for i in range(m):
        for c in range(3):
            for y in range(side):
                row, line = crops[i, c, y], out[i, c, y]
                if chosen[i, 0]:
                    for x in range(side):
                        line[x] = np.float32(row[np.uintp(side - 1 - x)]) / LEVELS
                else:
                    for x in range(side):
                        line[x] = np.float32(row[x]) / LEVELS
        r = out[i, 0].reshape(-1)
        g = out[i, 1].reshape(-1)
        b = out[i, 2].reshape(-1)
        if chosen[i, 1]:
            for position in range(4):
                which = order[i, position]
                amount = amounts[i, which]
                if which == BRIGHTNESS:
                    _blend(r, g, b, amount, ZERO, ZERO)
                elif which == CONTRAST:
                    _blend(r, g, b, amount, ZERO, (ONE - amount) * _mean_grey(r, g, b))
                elif which == SATURATION:
                    _blend(r, g, b, amount, ONE - amount, ZERO)
                else:
                    _turn_hue(r, g, b, amount)
        if chosen[i, 2]:
            for p in range(len(r)):
                y = RED * r[p] + GREEN * g[p] + BLUE * b[p]
                r[p], g[p], b[p] = y, y, y
        if chosen[i, 3]:
            for c in range(3):
                _blur(out[i, c], weights[i], scratch, wide)
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
def _clamp(x):  # type: ignore[no-untyped-def]
    return min(max(x, ZERO), ONE)


@kernel
def _mean_grey(r, g, b):  # type: ignore[no-untyped-def]
    """Mean of the grey image."""
    total = ZERO
    for p in range(len(r)):
        total += RED * r[p] + GREEN * g[p] + BLUE * b[p]
    return total / np.float32(len(r))


@kernel
def _blend(r, g, b, factor, grey, shift):  # type: ignore[no-untyped-def]
    """Set x to x * factor + grey image * grey + shift, clamped to [0, 1]."""
    for p in range(len(r)):
        y = grey * (RED * r[p] + GREEN * g[p] + BLUE * b[p]) + shift
        r[p] = _clamp(r[p] * factor + y)
        g[p] = _clamp(g[p] * factor + y)
        b[p] = _clamp(b[p] * factor + y)


@kernel
def _turn_hue(r, g, b, turn):  # type: ignore[no-untyped-def]
    """Turn the colour wheel, in place."""
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
def _blur_3(x, weight, out):  # type: ignore[no-untyped-def]
    """Blur sideways with a kernel of three, all rows as one run; then correct the borders."""
    values, sums = x.reshape(-1), out.reshape(-1)
    middle, left, right = values[1:-1], values[:-2], values[2:]
    inner = sums[1:-1]
    for p in range(len(inner)):
        inner[p] = weight[0] * middle[p] + weight[1] * (left[p] + right[p])
    for y in range(len(x)):
        out[y, 0] = weight[0] * x[y, 0] + 2 * weight[1] * x[y, 1]
        out[y, -1] = weight[0] * x[y, -1] + 2 * weight[1] * x[y, -2]


@kernel
def _blur(x, weight, scratch, wide):  # type: ignore[no-untyped-def]
    """Blur sideways into `scratch`, then downwards into `x`, with mirrored borders.

    Two pixels of each side at a time: half the passes over a row. `wide` holds a row with its
    borders mirrored.
    """
    side, size = len(x), len(weight)
    while size > 2 and weight[size - 1] == ZERO:
        size -= 1
    edge, last = size - 1, 2 * (side - 1)
    if size == 2:
        _blur_3(x, weight, scratch)
    for y in range(side if size > 2 else 0):
        row, out = x[y], scratch[y]
        for q in range(side):
            wide[edge + q] = row[q]
        for q in range(1, size):
            wide[edge - q] = row[q]
            wide[edge + side - 1 + q] = row[side - 1 - q]
        left, right = wide[edge - 1 :], wide[edge + 1 :]
        for q in range(side):
            out[q] = weight[0] * row[q] + weight[1] * (left[q] + right[q])
        for j in range(2, size, 2):
            inner, outer = weight[j], weight[j + 1] if j + 1 < size else ZERO
            k = min(j + 1, edge)
            a, b, c, d = wide[edge - j :], wide[edge + j :], wide[edge - k :], wide[edge + k :]
            for q in range(side):
                out[q] += inner * (a[q] + b[q]) + outer * (c[q] + d[q])
    for y in range(side):
        row, out = scratch[y], x[y]
        above, below = scratch[abs(y - 1)], scratch[min(y + 1, last - y - 1)]
        for q in range(side):
            out[q] = weight[0] * row[q] + weight[1] * (above[q] + below[q])
        for j in range(2, size, 2):
            inner, outer = weight[j], weight[j + 1] if j + 1 < size else ZERO
            k = min(j + 1, edge)
            a, b = scratch[abs(y - j)], scratch[min(y + j, last - y - j)]
            c, d = scratch[abs(y - k)], scratch[min(y + k, last - y - k)]
            for q in range(side):
                out[q] += inner * (a[q] + b[q]) + outer * (c[q] + d[q])
