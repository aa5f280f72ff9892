"""Augmentations of kornia by name, each view with parameters from a seed of its own.

kornia draws a batch's parameters from torch's global generator. Here a view's seed is part of its
draws, and its parameters follow from that seed alone, on the CPU. With seeds 7 and 9,

    parameters(7) = {"angle": [12.5]}    parameters(9) = {"angle": [-3.1]}
    both views are transformed in one call, with {"angle": [12.5, -3.1]}

so that neither the batch, the device nor the process changes what a view gets. Classes that use one
parameter for a whole batch (an order of colour changes, a size of a kernel) or lists of unequal
length get one view at a time; a trial with eight views finds out which.

Shape letters: k views, c channels, s side.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.yaml_files import parse_yaml

FLAG = "--views.kornia"
TRIAL_VIEWS = 8
PIXELS_AT_ONCE = 1 << 22  # of one call: its temporaries take tens of megabytes
Shape = tuple[int, int, int]
"""Channels, height and width of a view."""


@dataclass(frozen=True, eq=False)
class KorniaStep:
    """One class of `kornia.augmentation` with its arguments."""

    name: str
    p: float
    """Probability that a view is changed; drawn by us."""
    module: nn.Module
    """Built with p = 1, so that it changes all its inputs."""

    def parameters(self, seed: int, shape: Shape) -> dict[str, Tensor]:
        """Draw kornia's parameters of one view, without moving the global generator."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            drawn: dict[str, Tensor] = self.module.forward_parameters(torch.Size((1, *shape)))  # type: ignore[operator]
        return drawn

    def apply(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Change every view by its seed's parameters: [k, c, s, s] in [0, 1] to the same."""
        _, *shape = x.shape
        size = 1
        if _works_on_batches(self, (shape[0], shape[1], shape[2])):
            size = max(1, PIXELS_AT_ONCE // x[0].numel())
        blocks = [
            self._apply_block(x[start : start + size], seeds[start : start + size])
            for start in range(0, len(x), size)
        ]
        return torch.cat(blocks)

    def _apply_block(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        drawn = [self.parameters(seed, (x.shape[1], x.shape[2], x.shape[3])) for seed in seeds]
        params = {name: torch.cat([view[name] for view in drawn]) for name in drawn[0]}
        params["forward_input_shape"] = torch.tensor(x.shape)
        changed: Tensor = self.module(x, params=params)
        return changed.clamp(0, 1)

    def describe(self, seed: int, shape: Shape) -> str:
        """Say what a view gets: "RandomJPEG, jpeg quality 41.2"."""
        words = [self.name]
        for name, value in self.parameters(seed, shape).items():
            if name in ("batch_prob", "forward_input_shape", "idx") or value.numel() > 4:
                continue
            numbers = " ".join(f"{x:.3g}" for x in value.flatten().tolist())
            words.append(f"{name.removesuffix('_factor').replace('_', ' ')} {numbers}")
        return ", ".join(words)


@lru_cache(maxsize=16)
def kornia_steps(text: str) -> tuple[KorniaStep, ...]:
    """Build the classes that `--views.kornia` names, in their order.

    Raises:
        UserError: it is not YAML of that form, or a name or an argument is wrong.
    """
    if not text:
        return ()
    try:
        _, table = parse_yaml(text, "it")
    except UserError as error:
        raise UserError(f"{FLAG} is not valid YAML ({error}): {text[:200]!r}") from None
    require(
        isinstance(table, dict) and all(isinstance(v, dict | None) for v in table.values()),
        f'{FLAG} takes names with arguments, "{{RandomJPEG: {{jpeg_quality: 50, p: 0.2}}}}", '
        f"not {text!r}",
    )
    return tuple(_build(str(name), arguments or {}) for name, arguments in table.items())


def _build(name: str, arguments: dict[str, Any]) -> KorniaStep:
    import kornia.augmentation

    known = _single_image_classes()
    if name not in known:
        if hasattr(kornia.augmentation, name):
            raise UserError(
                f"{FLAG}: {name} is not an augmentation of single images that keeps their shape"
            )
        raise UserError(f"{FLAG}: kornia has no augmentation {name!r}{did_you_mean(name, known)}")
    signature = inspect.signature(known[name]).parameters
    allowed = [word for word in signature if word not in BATCH_ARGUMENTS]
    for word in arguments:
        require(
            word in allowed,
            f"{FLAG}: {name} has no argument {word!r}{did_you_mean(str(word), allowed)}; "
            f"it has {', '.join(allowed)}",
        )
    p = arguments.get("p", signature["p"].default if "p" in signature else 1.0)
    require(
        isinstance(p, int | float) and 0 <= p <= 1,
        f"{FLAG}: p of {name} is a probability, 0 to 1, not {p!r}",
    )
    values = {word: _from_yaml(x, signature[word]) for word, x in arguments.items()}
    try:
        module = known[name](**(values | ({"p": 1.0} if "p" in signature else {})))
    except Exception as error:  # kornia raises many kinds for arguments that do not fit
        raise UserError(f"{FLAG}: {name} refuses its arguments: {_first_line(error)}") from None
    return KorniaStep(name, float(p), module)


BATCH_ARGUMENTS = ("same_on_batch", "p_batch", "keepdim")
"""Arguments about batches, on which a view must not depend."""


@lru_cache(maxsize=1)
def _single_image_classes() -> dict[str, type[nn.Module]]:
    """List classes for images, without the bases and one that downloads a diffusion model.

    The trial rejects those that change the shape.
    """
    import kornia.augmentation as ka

    return {
        name: member
        for name, member in vars(ka).items()
        if inspect.isclass(member) and issubclass(member, ka.AugmentationBase2D)
        if not name.endswith("Base2D") and name != "RandomDissolving"
    }


def _from_yaml(value: Any, parameter: inspect.Parameter) -> Any:
    """Convert lists to tuples, or to a tensor where kornia takes nothing else."""
    if parameter.annotation in (Tensor, "Tensor"):
        return torch.tensor(value, dtype=torch.float32)
    return tuple(_from_yaml(x, parameter) for x in value) if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__


@lru_cache(maxsize=256)
def _works_on_batches(step: KorniaStep, shape: Shape) -> bool:
    """Try whether one call for many views gives what a call for each gives.

    Raises:
        UserError: the class fails on that shape, or changes it.
    """
    x = torch.rand(TRIAL_VIEWS, *shape, generator=torch.Generator().manual_seed(0))
    side = f"views of {shape[1]} x {shape[2]} pixels"
    try:
        single = [step._apply_block(x[i : i + 1], [i]) for i in range(TRIAL_VIEWS)]
    except Exception as error:  # anything: it is code of others, with arguments of the user
        raise UserError(f"{FLAG}: {step.name} fails on {side}: {_first_line(error)}") from None
    new = tuple(single[0].shape[1:])
    require(
        new == shape,
        f"{FLAG}: {step.name} changes {side} to {' x '.join(map(str, new[1:]))}; use "
        "classes that keep the shape (--views.area sets the crops)",
    )
    require(
        torch.equal(step._apply_block(x[:1], [0]), single[0]),
        f"{FLAG}: {step.name} gives another result each time it is applied",
    )
    try:
        at_once = step._apply_block(x, range(TRIAL_VIEWS))
    except Exception:  # such as parameters of unequal length
        return False
    return torch.allclose(at_once, torch.cat(single), rtol=0, atol=1e-5)


def check_shapes(text: str, channels: int, sizes: Sequence[int]) -> None:
    """Try every class on views of these sizes.

    Raises:
        UserError: one cannot be built, fails, or changes the shape.
    """
    for step in kornia_steps(text):
        for size in sizes:
            _works_on_batches(step, (channels, size, size))
