"""One picture of what training changed: queries and their nearest images, with several models.

selfsup neighbours pixels runs/simclr runs/triplet --data other_products/
selfsup neighbours runs/mine/published runs/mine --data apart/ --names published adapted

Queries are drawn at random, by the seed: no example is chosen by hand. With labels each neighbour
has a frame, green and solid for the query's class, red and crossed for another, and above each
model stands its MAP@R on all of the images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from tyro.conf import Positional, arg

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError, require
from selfsup.core.paths import check_file
from selfsup.core.words import counted

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
    from torch import Tensor

    from selfsup.config import EvaluateConfig
    from selfsup.data.sources import Source

RIGHT, WRONG, INK, PAPER = "#1a7f37", "#c01c28", "#1c1c1c", "#ffffff"
FRAME, GAP, WIDE_GAP, TITLE = 3, 4, 22, 42
"""Pixels: of a frame, between pictures, between models, of the titles."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Draw queries and their nearest images, with several models side by side."""

    models: Positional[tuple[str, ...]]
    """What --model of evaluations takes: pixels, runs, bundles, timm:NAME."""
    data: str
    """Images, labelled or not, that no training has seen; each query searches all others."""
    split: str = ""
    """Only the manifest's rows with this `split`."""
    labels: str = "label"
    """The manifest's column with the labels; of folders "folder:1", the first, or "folder:-1"."""
    names: tuple[str, ...] = ()
    """Titles, one for each model; by default the models' own names."""
    queries: int = 4
    """Number of queries; with labels each is of another class."""
    k: Annotated[int, arg(aliases=["-k"])] = 4
    """Neighbours of each."""
    side: int = 64
    """Of a picture, in pixels."""
    size: int | None = None
    """Side of the images that models see; by default what each was trained with."""
    seed: int = 0
    """Of the choice of queries."""
    out: str = "neighbours.png"
    """The picture."""


class Column(NamedTuple):
    """What one model finds."""

    title: str
    figure: str
    """MAP@R on all images, with its interval; empty without labels."""
    neighbours: list[list[int]]
    """Rows of the nearest images of each query."""


def main(config: Config) -> None:
    """Search with each model, draw, print where the picture is."""
    names = config.names or tuple(Path(model).name for model in config.models)
    require(len(config.models) > 0, "give a model, such as pixels, and a run")
    require(
        len(names) == len(config.models),
        f"{len(config.models)} models and {len(names)} --names: give one for each",
    )
    require(
        min(config.queries, config.k) > 0 and config.side >= 16,
        f"--queries {config.queries} and --k {config.k} must be above 0, --side {config.side} at "
        "least 16",
    )
    check_file(Path(config.out))
    source = _images(config)
    queries = _draw_queries(source, config)
    columns = [
        _search(model, name, source, queries, config)
        for model, name in zip(config.models, names, strict=True)
    ]
    image = _draw(columns, source, queries, config)
    out = Path(config.out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        image.save(out, optimize=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write the picture {out}: {error}") from None
    for column in columns:
        print(f"{column.title:<24}{column.figure}".rstrip())
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


def _images(config: Config, channels: int = 3) -> "Source":
    """Open the images, of so many channels; of labelled ones those with a label."""
    from selfsup.data.open import open_source
    from selfsup.data.subset import labelled_images

    source = open_source(config.data, split=config.split, labels=config.labels, channels=channels)
    require(
        len(source) > 1,
        f"{config.data} holds {counted(len(source), 'image')}: there is no neighbour",
    )
    return source if source.labels is None else labelled_images(source, config.data)


def _draw_queries(source: "Source", config: Config) -> list[int]:
    """Positions of queries, drawn by the seed: with labels one of each class, as far as they go."""
    import numpy as np

    from selfsup.core.seeds import seed_for

    rng = np.random.default_rng(seed_for(config.seed, 0, "queries"))
    order = rng.permutation(len(source)).tolist()
    if source.labels is not None:
        labels = source.labels.tolist()
        first = {labels[i]: i for i in reversed(order)}
        order = [i for i in order if first[labels[i]] == i]
    return [int(i) for i in order[: config.queries]]


def _search(model: str, name: str, source: "Source", queries: list[int], config: Config) -> Column:
    """Embed the images with one model, and find the neighbours of each query."""
    import torch

    from selfsup.config import EvaluateConfig
    from selfsup.core.numerics import normalize
    from selfsup.evaluate.model import embed, open_model
    from selfsup.search.neighbours import nearest

    settings = EvaluateConfig(
        model=model, data=config.data, size=config.size, seed=config.seed, labels=config.labels
    )
    opened = open_model(settings)
    features = embed(opened, _images(config, channels=opened.views.channels), settings)
    require(
        not features.bad,
        f"{counted(features.bad, 'image')} of {config.data} cannot be read: selfsup audit names "
        "them",
    )
    x = normalize(features.x)
    with torch.inference_mode():
        blocks = list(nearest(x, x, config.k, exclude_self=True, memory=1 << 28))
    indices = torch.cat([block.indices for block in blocks])
    figure = "" if source.labels is None else _map_at_r(features.x, features.labels, settings)
    return Column(name, figure, indices[queries].tolist())


def _map_at_r(x: "Tensor", labels: "Tensor", settings: "EvaluateConfig") -> str:
    """MAP@R of a search of each image among all others, with an interval over classes."""
    from selfsup.evaluate.intervals import figure
    from selfsup.evaluate.retrieval_figures import retrieval
    from selfsup.search.gallery import Queries

    found = retrieval(Queries(x, labels))
    how = {"seed": settings.seed, "resamples": settings.resamples}
    return f"MAP@R {figure(found.figures['MAP@R'], groups=labels[found.queries], **how)}"


def _draw(
    columns: list[Column], source: "Source", queries: list[int], config: Config
) -> "Image.Image":
    """Lay out a row for each query: itself, then its neighbours with each model."""
    from PIL import Image, ImageDraw, ImageFont

    step = config.side + 2 * FRAME + GAP
    group = config.k * step + WIDE_GAP
    width = GAP + step + WIDE_GAP + len(columns) * group - WIDE_GAP
    image = Image.new("RGB", (width, TITLE + len(queries) * step + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(12)
    draw.text((GAP, 4), "query", INK, font=bold)
    for i, column in enumerate(columns):
        left = GAP + step + WIDE_GAP + i * group
        draw.text((left, 4), column.title, INK, font=bold)
        draw.text((left, 23), column.figure, INK, font=plain)
        for row, query in enumerate(queries):
            for rank, found in enumerate(column.neighbours[row]):
                place = left + rank * step, TITLE + row * step
                _paste(image, draw, source, found, place, _right(source, query, found), config.side)
    for row, query in enumerate(queries):
        _paste(image, draw, source, query, (GAP, TITLE + row * step), None, config.side)
    return image


def _right(source: "Source", query: int, found: int) -> bool | None:
    """Whether an image is of the query's class; None without labels."""
    if source.labels is None:
        return None
    return bool(source.labels[query] == source.labels[found])


def _paste(
    image: "Image.Image",
    draw: "ImageDraw.ImageDraw",
    source: "Source",
    position: int,
    place: tuple[int, int],
    right: bool | None,
    side: int,
) -> None:
    """Paste a picture with its frame; a wrong one is crossed, for who does not see the colours."""
    from PIL import Image, ImageOps

    x, y = place
    end = x + side + 2 * FRAME - 1, y + side + 2 * FRAME - 1
    picture = ImageOps.pad(Image.fromarray(source.pixels(position)), (side, side), color=PAPER)
    colour = PAPER if right is None else RIGHT if right else WRONG
    draw.rectangle((x, y, *end), fill=colour)
    image.paste(picture, (x + FRAME, y + FRAME))
    if right is False:
        left, low, arm = x + FRAME, end[1] - FRAME, side // 4
        draw.rectangle((left, low - arm, left + arm, low), fill=PAPER)
        draw.line((left, low, left + arm, low - arm), colour, 3)
        draw.line((left, low - arm, left + arm, low), colour, 3)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
