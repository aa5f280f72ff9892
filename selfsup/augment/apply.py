"""Applying draws: from cropped pixels to what the network sees, on the device, with no randomness.

Draws stay on the CPU, and what is to be done to which view is decided there, once for the batch:
the device is never waited for. Views are taken in an order of their own, so that those whose hue
turns at the same point lie together, and on a CPU a few at a time, so that they stay in its cache.

Shape letters: b images, v views, m = b * v, k views at a time, c channels, s side, p pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from selfsup.augment import colour, geometry
from selfsup.augment.blur import blur, reach, taps
from selfsup.augment.draws import Change, Draws
from selfsup.augment.kornia_steps import kornia_steps
from selfsup.config import ViewsConfig
from selfsup.core import compiled

AT_ONCE = 128 * 1024  # pixels of a CPU's turn: 128 views of 32 pixels, 2 of 224
Step = Callable[[Tensor, int], None]
"""Changes the views of a turn in place."""


def apply(
    crops: Tensor, draws: Draws, config: ViewsConfig, changes: Sequence[Change] = ()
) -> Tensor:
    """Flip, turn, colour, grey, blur, solarize, normalise and erase each view by its own draws.

    Where numba is installed, views on a CPU take its compiled form (within 2e-5 of this one).

    Args:
        crops: uint8 [b, v, c, s, s], as the reader cut them.
        draws: of these b images, on the CPU.
        config: for the mean and deviation of channels.
        changes: your own, before the normalisation.

    Returns:
        float32 [b, v, c, s, s] on the device of `crops`.
    """
    if not config.kornia:
        return _coloured(crops, draws, config, changes)
    zero, one = (0.0,) * config.channels, (1.0,) * config.channels
    as_levels = replace(config, mean=zero, std=one)
    kept = draws._replace(erase=torch.zeros_like(draws.erase))  # erased after the normalisation
    x = _coloured(crops, kept, as_levels, changes).flatten(0, 1)  # [m, c, s, s]
    flat = draws.flat()
    for step, seeds in zip(kornia_steps(config.kornia), flat.kornia, strict=True):
        rows = (seeds[:, 0] >= 0).nonzero()[:, 0]
        if len(rows):
            place = rows.to(x.device, non_blocking=True)
            x.index_copy_(0, place, step.apply(x[place], seeds[rows, 0].tolist()))
    standardize_(x, config.mean, config.std)
    erase = _Turns(torch.tensor([0, len(x)]), x.device).erase(flat, x.shape[-1])
    if erase:
        erase(x, 0)
    return x.view(crops.shape)


def _coloured(
    crops: Tensor, draws: Draws, config: ViewsConfig, changes: Sequence[Change]
) -> Tensor:
    """All of `apply` but kornia's classes, in the form that is fastest on the device."""
    if compiled.available() and _plain(crops, config, changes):
        from selfsup.augment.fast import fused

        return fused(crops, draws, config)
    return composed(crops, draws, config, changes)


def _plain(crops: Tensor, config: ViewsConfig, changes: Sequence[Change]) -> bool:
    """Whether the compiled form has all that may be drawn: never a matter of what was."""
    rare = config.quarter_turn or config.rotate or config.erase or config.gain
    return crops.device.type == "cpu" and crops.shape[2] == 3 and not (changes or rare)


def composed(
    crops: Tensor, draws: Draws, config: ViewsConfig, changes: Sequence[Change] = ()
) -> Tensor:
    """`apply` in torch, on any device."""
    flat, draws = crops.flatten(0, 1), draws.flat()  # [m, c, s, s]
    hue_at = _turn_of_hue(draws)
    order = (2 * hue_at + draws.flip[:, 0]).argsort(stable=True)
    hue_at, draws = hue_at[order], draws.rows(order)
    m, size = len(order), len(order)
    if crops.device.type == "cpu":
        size = max(1, AT_ONCE // flat[0, 0].numel())
    edges = torch.tensor([*range(0, m, size), m])
    turns = _Turns(edges, crops.device)
    erase = turns.erase(draws, crops.shape[-1])
    flip = draws.flip[:, 0].tolist()
    steps = turns.steps(draws, hue_at, crops.shape[-1], changes)
    place = order.to(crops.device, non_blocking=True)
    out = torch.empty(flat.shape, dtype=torch.float32, device=crops.device)
    for i, start in enumerate(range(0, m, size)):
        rows = place[start : start + size]
        x = _floats(flat.index_select(0, rows), flip[start : start + size])
        for step in steps:
            step(x, i)
        standardize_(x, config.mean, config.std)
        if erase:
            erase(x, i)
        out.index_copy_(0, rows, x)
    return out.view(crops.shape)


def _floats(x: Tensor, flipped: list[bool]) -> Tensor:
    """Levels as values in [0, 1], some images from right to left; those lie in runs."""
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    start = 0
    for flip, run in groupby(flipped):
        rows = slice(start, start + len(list(run)))
        out[rows] = x[rows].flip(-1) if flip else x[rows]
        start = rows.stop
    return out.div_(255)


def _turn_of_hue(draws: Draws) -> Tensor:
    """Which of the four colour changes hue is, 0 to 3; 4 where none are made. [m]."""
    turn = (draws.order[:, 0] == colour.HUE).to(torch.uint8).argmax(1)
    return torch.where(draws.jitter[:, 0], turn, 4)


class _Turns:
    """What is done in each turn, made ready on the CPU and sent to the device."""

    def __init__(self, edges: Tensor, device: torch.device) -> None:
        """Turn i has the views from edges[i] to edges[i + 1]."""
        self.edges = edges
        self.device = device

    def steps(self, d: Draws, hue_at: Tensor, side: int, changes: Sequence[Change]) -> list[Step]:
        """What changes values in [0, 1]."""
        quarters = (
            self.some(d.quarters == times, partial(torch.rot90, k=times, dims=(2, 3)))
            for times in (1, 2, 3)
        )
        steps = [
            *quarters,
            self.some(d.rotate, geometry.rotate, d.degrees[:, 0]),
            self.jitter(d, hue_at),
            self.gains(d),
            self.some(d.grey, lambda x: colour.luma(x.flatten(2)).view_as(x[:, :1])),
            self.blur(d, side),
            self.some(d.solarize, lambda x: torch.where(x >= 128 / 255, 1 - x, x)),
            *(self.own(change, drawn) for change, drawn in zip(changes, d.more, strict=True)),
        ]
        return [step for step in steps if step]

    def send(self, x: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        return x.to(self.device, non_blocking=True)

    def some(self, chosen: Tensor, change: Callable[..., Tensor], *by: Tensor) -> Step | None:
        """Change the chosen views, [m, 1], by their rows of `by`."""
        rows = chosen[:, 0].nonzero()[:, 0]
        if not len(rows):
            return None
        cuts = torch.searchsorted(rows, self.edges).tolist()
        starts = self.edges.tolist()
        there, amounts = self.send(rows), [self.send(amount[rows]) for amount in by]

        def step(x: Tensor, i: int) -> None:
            own = slice(cuts[i], cuts[i + 1])
            if own.start < own.stop:
                place = there[own] - starts[i]
                changed = change(x.index_select(0, place), *(amount[own] for amount in amounts))
                x.index_copy_(0, place, changed.expand(-1, x.shape[1], -1, -1))

        return step

    def jitter(self, d: Draws, hue_at: Tensor) -> Step | None:
        """Four colour changes in each view's own order.

        Three turns of brightness, contrast and saturation are the same for all views, by other
        amounts; hue comes before them, between them or after them, for a run of views each.
        """
        k = int((hue_at < 4).sum())
        if not k:
            return None
        which = d.order[:k, 0]
        which = which[which != colour.HUE].view(k, 3)  # in the order of turns
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
            for turn in range(4):
                low, high = max(runs[turn], start), min(runs[turn + 1], stop)
                if low < high and x.shape[1] == 3:
                    colour.turn_hue(x[low - start : high - start], shift[low:high])
                if turn < 3:
                    colour.blend(x, *amounts[turn, :, start:stop])

        return step

    def gains(self, d: Draws) -> Step | None:
        """Each channel by its own factor."""
        if bool((d.gains == 1).all()):
            return None
        return self.some(
            d.jitter, lambda x, gain: (x * gain[:, :, None, None]).clamp_(0, 1), d.gains[:, 0]
        )

    def blur(self, d: Draws, side: int) -> Step | None:
        """By each view's own width."""
        if not d.blur.any():
            return None
        r = reach(side, float(d.sigma[d.blur].max()))
        return self.some(d.blur, blur, taps(d.sigma[:, 0], side)[:, : r + 1])

    def own(self, change: Change, drawn: Tensor) -> Step:
        """A change of the user's."""
        edges, there = self.edges.tolist(), self.send(drawn[:, 0])

        def step(x: Tensor, i: int) -> None:
            x.copy_(change.apply(x, there[edges[i] : edges[i + 1]]))

        return step

    def erase(self, d: Draws, side: int) -> Step | None:
        """A rectangle becomes the mean."""
        if not d.erase.any():
            return None
        boxes, fits = d.erased.proposed(side, side)
        return self.some(d.erase & fits, geometry.erase, boxes[:, 0])


def standardize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract each channel's mean and divide by its deviation. [..., c, s, s] in [0, 1]."""
    return standardize_(x.clone(), mean, std)


def standardize_(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """`standardize` in place."""
    moments = torch.tensor([mean, std], dtype=x.dtype)
    scale = 1 / moments[1]
    shift, scale = (
        m.to(x.device, non_blocking=True)[:, None, None] for m in (-moments[0] * scale, scale)
    )
    return x.mul_(scale).add_(shift)
