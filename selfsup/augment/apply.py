"""Applying draws: from cropped pixels to what the network sees, on the device, with no randomness.

Draws stay on the CPU, and what is done to which view is decided there, once for the batch, so that
the device is never waited for. Views are sorted so that those whose hue turns at the same point lie
next to each other, and on a CPU they are processed in blocks that stay in its cache.

Shape letters: b images, v views, m = b * v, k views of a block, c channels, s side, p pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from selfsup.augment import colour, forms, geometry
from selfsup.augment.blur import blur, kernel_radius, kernel_weights
from selfsup.augment.draws import Change, Draws
from selfsup.augment.kornia_steps import kornia_steps
from selfsup.config import ViewsConfig
from selfsup.core import compiled
from selfsup.core.transfers import send

BLOCK_VALUES = 128 * 1024  # of a block on a CPU: 42 views of 32 pixels, one of 224
Step = Callable[[Tensor, int], None]
"""Changes the views of block i in place."""


def apply(
    crops: Tensor,
    draws: Draws,
    config: ViewsConfig,
    changes: Sequence[Change] = (),
    *,
    fused: bool = False,
) -> Tensor:
    """Flip, turn, colour, grey, blur, solarize, normalise and erase each view by its own draws.

    On a CPU with numba this is one compiled loop, within 2e-5 of the form in torch.

    Args:
        crops: uint8 [b, v, c, s, s], as the reader cropped them.
        draws: of these b images, on the CPU.
        config: for the mean and deviation of channels, and for kornia's classes.
        changes: custom augmentations, before kornia's and the normalisation.
        fused: use the compiled forms of `forms`, for a GPU.

    Returns:
        float32 [b, v, c, s, s] on the device of `crops`.
    """
    if not config.kornia:
        return _apply_ours(crops, draws, config, changes, fused=fused)
    zero, one = (0.0,) * config.channels, (1.0,) * config.channels
    unnormalised = replace(config, mean=zero, std=one)
    without_erasing = draws._replace(erase=torch.zeros_like(draws.erase))
    x = _apply_ours(crops, without_erasing, unnormalised, changes, fused=fused)
    x = x.flatten(0, 1)  # [m, c, s, s]
    flat = draws.flat()
    for step, seeds in zip(kornia_steps(config.kornia), flat.kornia, strict=True):
        rows = (seeds[:, 0] >= 0).nonzero()[:, 0]
        if len(rows):
            device_rows = send(rows, x.device)
            changed = step.apply(x[device_rows], seeds[rows, 0].tolist())
            x.index_copy_(0, device_rows, changed)
    standardize_(x, *config.normalization)
    erase = _Blocks(torch.tensor([0, len(x)]), x.device).erase(flat, x.shape[-1])
    if erase:
        erase(x, 0)
    return x.view(crops.shape)


def _apply_ours(
    crops: Tensor, draws: Draws, config: ViewsConfig, changes: Sequence[Change], *, fused: bool
) -> Tensor:
    """All of `apply` but kornia's classes, in the form that is fastest on the device."""
    if compiled.available() and _has_compiled_form(crops, config, changes):
        from selfsup.augment.compiled_apply import apply_compiled

        return apply_compiled(crops, draws, config)
    return apply_in_torch(crops, draws, config, changes, fused=fused)


def _has_compiled_form(crops: Tensor, config: ViewsConfig, changes: Sequence[Change]) -> bool:
    """Decide by what may be drawn, never by what was: a run has one form from end to end."""
    rare = config.quarter_turn or config.rotate or config.erase or config.gain
    return crops.device.type == "cpu" and crops.shape[2] == 3 and not (changes or rare)


def apply_in_torch(
    crops: Tensor,
    draws: Draws,
    config: ViewsConfig,
    changes: Sequence[Change] = (),
    *,
    fused: bool = False,
) -> Tensor:
    """`apply` without kornia's classes, on any device."""
    flat, draws = crops.flatten(0, 1), draws.flat()  # [m, c, s, s]
    hue_at = _hue_positions(draws)
    order = (2 * hue_at + draws.flip[:, 0]).argsort(stable=True)
    hue_at, draws = hue_at[order], draws.rows(order)
    m, size = len(order), len(order)
    if crops.device.type == "cpu":
        size = max(1, BLOCK_VALUES // flat[0, 0].numel())
    edges = torch.tensor([*range(0, m, size), m])
    blocks = _Blocks(edges, crops.device, forms.fused() if fused else forms.BY_OPERATION)
    erase = blocks.erase(draws, crops.shape[-1])
    flip = draws.flip[:, 0].tolist()
    steps = blocks.steps(draws, hue_at, crops.shape[-1], changes)
    device_order = send(order, crops.device)
    out = torch.empty(flat.shape, dtype=torch.float32, device=crops.device)
    for i, start in enumerate(range(0, m, size)):
        rows = device_order[start : start + size]
        x = _to_floats(flat.index_select(0, rows), flip[start : start + size])
        for step in steps:
            step(x, i)
        standardize_(x, *config.normalization)
        if erase:
            erase(x, i)
        out.index_copy_(0, rows, x)
    return out.view(crops.shape)


def _to_floats(x: Tensor, flipped: list[bool]) -> Tensor:
    """Scale levels to [0, 1] and mirror the flipped images; images of a kind lie in runs."""
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    start = 0
    for flip, run in groupby(flipped):
        rows = slice(start, start + len(list(run)))
        out[rows] = x[rows].flip(-1) if flip else x[rows]
        start = rows.stop
    return out.div_(255)


def _hue_positions(draws: Draws) -> Tensor:
    """Which of the four colour changes hue is, 0 to 3; 4 where none is made. [m]."""
    position = (draws.order[:, 0] == colour.HUE).to(torch.uint8).argmax(1)
    return torch.where(draws.jitter[:, 0], position, 4)


class _Blocks:
    """What is done in each block of views, prepared on the CPU and sent to the device."""

    def __init__(
        self, edges: Tensor, device: torch.device, form: forms.Form = forms.BY_OPERATION
    ) -> None:
        """Block i has the views from edges[i] to edges[i + 1]."""
        self.edges = edges
        self.form = form
        self.device = device

    def steps(self, d: Draws, hue_at: Tensor, side: int, changes: Sequence[Change]) -> list[Step]:
        """List what changes values in [0, 1]."""
        quarters = (
            self.on_views(d.quarters == times, partial(torch.rot90, k=times, dims=(2, 3)))
            for times in (1, 2, 3)
        )
        steps = [
            *quarters,
            self.on_views(d.rotate, geometry.rotate, d.degrees[:, 0]),
            self.jitter(d, hue_at),
            self.gains(d),
            self.on_views(d.grey, lambda x: colour.luma(x.flatten(2)).view_as(x[:, :1])),
            self.blur(d, side),
            self.on_views(d.solarize, lambda x: torch.where(x >= 128 / 255, 1 - x, x)),
            *(self.custom(change, drawn) for change, drawn in zip(changes, d.custom, strict=True)),
        ]
        return [step for step in steps if step]

    def send(self, x: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        return send(x, self.device)

    def on_views(
        self, chosen: Tensor, change: Callable[..., Tensor], *amounts: Tensor
    ) -> Step | None:
        """Change the chosen views, [m, 1], by their rows of `amounts`."""
        rows = chosen[:, 0].nonzero()[:, 0]
        if not len(rows):
            return None
        row_edges = torch.searchsorted(rows, self.edges).tolist()
        starts = self.edges.tolist()
        device_rows, device_amounts = self.send(rows), [self.send(a[rows]) for a in amounts]

        def step(x: Tensor, i: int) -> None:
            block = slice(row_edges[i], row_edges[i + 1])
            if block.start < block.stop:
                place = device_rows[block] - starts[i]
                changed = change(x.index_select(0, place), *(a[block] for a in device_amounts))
                x.index_copy_(0, place, changed.expand(-1, x.shape[1], -1, -1))

        return step

    def jitter(self, d: Draws, hue_at: Tensor) -> Step | None:
        """Four colour changes in each view's own order.

        Brightness, contrast and saturation are one formula with different amounts, applied three
        times to all views; hue comes before, between or after these three, for a run of views each.
        """
        k = int((hue_at < 4).sum())
        if not k:
            return None
        which = d.order[:k, 0]
        which = which[which != colour.HUE].view(k, 3)  # in each view's order
        factor = torch.cat([d.brightness, d.contrast, d.saturation], 1)[:k].gather(1, which)
        grey, mean = ((1 - factor) * (which == c) for c in (colour.SATURATION, colour.CONTRAST))
        amounts = self.send(torch.stack([factor, grey, mean]).permute(2, 0, 1).contiguous())
        shift = self.send(d.hue[:k, 0])
        runs = torch.searchsorted(hue_at, torch.arange(5)).tolist()  # where each run begins
        edges = self.edges.tolist()

        def step(x: Tensor, i: int) -> None:
            start, stop = edges[i], min(edges[i + 1], k)
            if start >= stop:
                return
            x = x[: stop - start].flatten(2)
            for position in range(4):
                low, high = max(runs[position], start), min(runs[position + 1], stop)
                if low < high and x.shape[1] == 3:
                    self.form.turn_hue(x[low - start : high - start], shift[low:high])
                if position < 3:
                    self.form.blend(x, *amounts[position, :, start:stop])

        return step

    def gains(self, d: Draws) -> Step | None:
        """Multiply each channel by its own factor."""
        if bool((d.gains == 1).all()):
            return None
        return self.on_views(
            d.jitter, lambda x, gain: (x * gain[:, :, None, None]).clamp_(0, 1), d.gains[:, 0]
        )

    def blur(self, d: Draws, side: int) -> Step | None:
        """Blur by each view's own width."""
        if not d.blur.any():
            return None
        radius = kernel_radius(side, float(d.sigma[d.blur].max()))
        return self.on_views(d.blur, blur, kernel_weights(d.sigma[:, 0], side)[:, : radius + 1])

    def custom(self, change: Change, drawn: Tensor) -> Step:
        """Apply a custom augmentation to the whole block."""
        edges, device_drawn = self.edges.tolist(), self.send(drawn[:, 0])

        def step(x: Tensor, i: int) -> None:
            x.copy_(change.apply(x, device_drawn[edges[i] : edges[i + 1]]))

        return step

    def erase(self, d: Draws, side: int) -> Step | None:
        """Set a rectangle to the mean."""
        if not d.erase.any():
            return None
        boxes, fits = d.erased.first_fitting(side, side)
        return self.on_views(d.erase & fits, geometry.erase, boxes[:, 0])


def standardize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract each channel's mean and divide by its deviation. [..., c, s, s] in [0, 1]."""
    return standardize_(x.clone(), mean, std)


def standardize_(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """`standardize` in place."""
    moments = torch.tensor([mean, std], dtype=x.dtype)
    scale = 1 / moments[1]
    shift, scale = send(torch.stack([-moments[0] * scale, scale]), x.device)[:, :, None, None]
    return x.mul_(scale).add_(shift)
