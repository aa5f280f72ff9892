"""Mixes of two encoders' weights: (1 - a) A + a B, for a from 0 to 1.

Source: WiSE-FT (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903), section 3: where B was
fine-tuned from A, mixes between the two keep most of what B learnt and lose less of what A knew.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from selfsup.config import BlendConfig
from selfsup.core.distributed import is_main
from selfsup.core.errors import UserError, require
from selfsup.core.paths import check_output, exists
from selfsup.data.subset import searchable_images
from selfsup.encoders.encoder import Encoder, export
from selfsup.encoders.model_card import refresh_card
from selfsup.encoders.published import is_published
from selfsup.evaluate.model import EvaluatedModel, embed, open_images, open_model
from selfsup.evaluate.results import write_record
from selfsup.evaluate.retrieval_figures import retrieval
from selfsup.search.gallery import Queries

RECALL, PRECISION = "Recall@1", "MAP@R"


@dataclass(frozen=True)
class Blend:
    """The curve over the mixes of two encoders."""

    fractions: list[float]
    """Of the second encoder in each mix."""
    figures: dict[str, list[dict[str, float]]]
    """By the name of a set: Recall@1 and MAP@R of each mix."""
    best: int
    """Position of the mix with the highest MAP@R, on average over the sets."""
    out: Path | None
    """Where the best mix lies."""

    def table(self) -> str:
        """The curve in plain text: a row for each mix, MAP@R (and Recall@1) of each set."""
        names = list(self.figures)
        short = [name.rstrip("/").split("/")[-1][:20] for name in names]
        rows = ["of the second  " + "  ".join(f"{name:>20}" for name in short)]
        for i, fraction in enumerate(self.fractions):
            cells = (self.figures[name][i] for name in names)
            texts = (f"{cell[PRECISION]:.3f} ({cell[RECALL]:.3f})" for cell in cells)
            mark = "  <- best" if i == self.best else ""
            rows.append(f"{fraction:13.2f}  " + "  ".join(f"{t:>20}" for t in texts) + mark)
        rows.append("MAP@R (Recall@1); the best has the highest MAP@R on average over the sets")
        if self.best in (0, len(self.fractions) - 1):
            which = "first" if self.best == 0 else "second"
            rows.append(f"no mix is better than the {which} encoder alone")
        if self.out is not None:
            rows.append(f"the best mix is in {self.out}")
        return "\n".join(rows)


def blend(config: BlendConfig) -> Blend:
    """Measure mixes of two encoders on sets of labelled images, and export the best to `out`.

    Each image of a set searches all the others. Statistics of batch norms are mixed as weights are.

    Raises:
        UserError: the two have other networks, or a set has no labels or only one class.
    """
    _check(config)
    first = open_model(config)
    second = open_model(replace(config, model=config.other))
    for model, name in ((first, config.model), (second, config.other)):
        require(isinstance(model.encoder, Encoder), f"{name} has no weights to mix")
        require(
            bool(config.init) or exists(name) or is_published(name),
            f"{name} names a network with random weights: timm:{name} are its published ones",
        )
    _require_same_network(first, second, config)
    fractions = [i / (config.mixes - 1) for i in range(config.mixes)]
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in config.on}
    mixed = first._replace(encoder=deepcopy(first.encoder))
    for fraction in fractions:
        mix(first.encoder, second.encoder, fraction, into=mixed.encoder)
        named = mixed._replace(name=f"the mix at {fraction:g}", folder=None)
        for name in config.on:
            figures[name].append(_measure(named, name, config))
    means = [sum(rows[i][PRECISION] for rows in figures.values()) for i in range(config.mixes)]
    best = max(range(config.mixes), key=means.__getitem__)
    out = Path(config.out) if config.out else None
    result = Blend(fractions, figures, best, out)
    if out is not None and is_main():
        mix(first.encoder, second.encoder, fractions[best], into=mixed.encoder)
        assert isinstance(mixed.encoder, Encoder)
        export(mixed.encoder.cpu(), out / "encoder", first.views)
        record = {"models": [config.model, config.other], "best": fractions[best]}
        curve = {"fractions": fractions, "figures": figures}
        write_record(out / "blend.json", record | curve)
        refresh_card(out)
    return result


@torch.no_grad()
def mix(first: nn.Module, second: nn.Module, fraction: float, *, into: nn.Module) -> None:
    """Write (1 - fraction) first + fraction second into a network of the same tensors."""
    theirs = second.state_dict()
    others = first.state_dict()
    for name, tensor in into.state_dict().items():
        a, b = others[name].to(tensor.device), theirs[name].to(tensor.device)
        if tensor.is_floating_point():
            tensor.copy_(torch.lerp(a, b, fraction))
        else:  # counters are not mixed
            tensor.copy_(a if fraction < 0.5 else b)


def _check(config: BlendConfig) -> None:
    """Refuse settings that make no sense, before anything is opened."""
    require(config.mixes > 1, f"--mixes must be 2 or more, not {config.mixes}")
    require(bool(config.on), "--on needs a set of labelled images")
    twice = [name for i, name in enumerate(config.on) if name in config.on[:i]]
    require(not twice, f"--on names {', '.join(twice)} more than once: give each set once")
    require(
        config.model != config.other,
        f"--model and --other are both {config.model}: there is nothing between the two",
    )
    if config.out:
        check_output(Path(config.out), mark="blend.json", otherwise="no blend")


def _require_same_network(
    first: EvaluatedModel, second: EvaluatedModel, config: BlendConfig
) -> None:
    """Raise a UserError if two encoders have other tensors, or see images in other ways."""
    shapes, others = (
        {name: tuple(x.shape) for name, x in model.encoder.state_dict().items()}
        for model in (first, second)
    )
    different = [name for name in {**shapes, **others} if shapes.get(name) != others.get(name)]
    if different:
        raise UserError(
            f"{config.model} and {config.other} have other networks: {len(different)} tensors "
            f"differ, such as {different[0]}. Both must have the same, without an embedding head "
            "of their own: fine-tune with --method.dim 0"
        )
    for setting in ("size", "mean", "std"):
        a, b = getattr(first.views, setting), getattr(second.views, setting)
        require(
            a == b,
            f"{config.model} sees images with {setting} {a}, and {config.other} with {b}: "
            + ("give --size for both" if setting == "size" else "they cannot be mixed"),
        )


def _measure(model: EvaluatedModel, data: str, config: BlendConfig) -> dict[str, float]:
    images = searchable_images(open_images(model, data, "", config), data)
    features = embed(model, images, config)
    values = retrieval(Queries(features.x, features.labels)).figures
    return {name: float(values[name].mean()) for name in (RECALL, PRECISION)}
