"""The embeddings in a report: neighbours, worst queries, suspected label errors, and a map.

Shape letters: n images, d width, k neighbours.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.numerics import normalize
from selfsup.core.seeds import generator
from selfsup.data.decode import BadImage
from selfsup.data.sources import Source
from selfsup.evaluate.features import Features
from selfsup.evaluate.label_suspects import AGREEMENT, SMALLEST, LabelSuspects, label_suspects
from selfsup.evaluate.retrieval_figures import retrieval
from selfsup.report.curves import scatter
from selfsup.report.page import blank, grid, heading, paragraph, picture, small
from selfsup.search.gallery import Queries
from selfsup.search.neighbours import nearest

SHOWN = 6  # queries of a section
NEIGHBOURS = 7  # of each, that are shown
WEAK = 0.5  # below this fraction of neighbours of the own label, no suspects is no good news
SIDE = 84  # pixels of a picture


class EmbeddedImages(NamedTuple):
    """Images, their embeddings and neighbours."""

    source: Source
    features: Features
    similarity: Tensor
    """float32 [n, k]."""
    indices: Tensor
    """int64 [n, k], rows of the features."""

    @property
    def labelled(self) -> bool:
        """Whether every image has a label, and there are two or more."""
        labels = self.features.labels
        return bool((labels >= 0).all()) and len(labels.unique()) > 1


def with_neighbours(source: Source, features: Features) -> EmbeddedImages:
    """Find the nearest others of each image."""
    z = normalize(features.x)
    blocks = list(nearest(z, z, 20, exclude_self=True))
    similarity = torch.cat([block.similarity for block in blocks])
    indices = torch.cat([block.indices for block in blocks])
    return EmbeddedImages(source, features, similarity, indices)


def sections(images: EmbeddedImages, *, seed: int, tsne: bool, suspects: Path) -> list[str]:
    """Lay out all sections, as HTML; write all suspected label errors to the file `suspects`.

    Raises:
        UserError: the file cannot be written.
    """
    n = len(images.features.x)
    some = torch.randperm(n, generator=generator(seed, 0, "report"))[:SHOWN].sort().values
    parts = [
        heading("Images and their neighbours"),
        paragraph(
            "The first of each row is the query; + marks neighbours of its label, x others."
            if images.labelled
            else "The first of each row is the query; the number is the cosine."
        ),
        *(_row(images, int(i)) for i in some),
    ]
    if images.labelled:
        parts += _worst(images) + _label_errors(images, suspects)
    return [*parts, heading("Map"), paragraph(_about(tsne)), _map(images, seed=seed, tsne=tsne)]


def _row(images: EmbeddedImages, i: int) -> str:
    pictures = [_picture(images, i, "query", right=None)]
    labels = images.features.labels
    for cosine, j in zip(
        images.similarity[i, :NEIGHBOURS].tolist(), images.indices[i].tolist(), strict=False
    ):
        right = bool(labels[i] == labels[j]) if images.labelled else None
        mark = "" if right is None else "+ " if right else "x "
        pictures.append(_picture(images, j, f"{mark}{cosine:.2f}", right=right))
    return grid(pictures, "row")


def _picture(images: EmbeddedImages, row: int, words: str, *, right: bool | None) -> str:
    position = int(images.features.positions[row])
    label = int(images.features.labels[row])
    caption = (
        f"{words}\n{images.features.classes[label] if label >= 0 else images.source.name(position)}"
    )
    kind = "" if right is None else "right" if right else "wrong"
    try:
        image = small(images.source.pixels(position), SIDE)
    except BadImage:
        return blank(f"{caption}\ncannot be read", width=SIDE)
    large = min(image.shape[:2]) > 48
    return picture(image, caption, width=SIDE, jpeg=large, kind=kind)


def _worst(images: EmbeddedImages) -> list[str]:
    """Queries with the lowest average precision."""
    try:
        search = retrieval(Queries(images.features.x, images.features.labels))
    except ValueError:  # no label comes twice
        return []
    order = search.figures["mAP"].argsort(stable=True)[:SHOWN]
    return [
        heading("Worst queries"),
        paragraph(
            f"Lowest average precision of {len(search.queries)}; the mean is "
            f"{float(search.figures['mAP'].mean()):.3f}."
        ),
        *(_row(images, int(search.queries[i])) for i in order),
    ]


def _label_errors(images: EmbeddedImages, file: Path) -> list[str]:
    suspects = label_suspects(images.features.labels, images.indices)
    write_suspects(file, images, suspects)
    return [
        heading("Suspected label errors"),
        *map(paragraph, describe_suspects(suspects, len(images.features.x), file.name)),
        *(_row(images, int(i)) for i in suspects.rows[:SHOWN]),
    ]


def describe_suspects(suspects: LabelSuspects, n: int, file: str) -> list[str]:
    """Say how many of n images are suspect, and what the neighbours cannot tell."""
    if not suspects.classes:
        return [
            f"Classes are too small to tell: none of {suspects.small_classes} has {SMALLEST} "
            f"images or more among these {n}. Nothing here says that the labels are right."
        ]
    sentences = [
        f"{len(suspects.rows)} of {n} images have neighbours of which {AGREEMENT:.0%} or more "
        f"agree on one other label. All of them are in {file}."
    ]
    if suspects.small_classes:
        sentences.append(
            f"{suspects.small_classes} of {suspects.small_classes + suspects.classes} classes have "
            f"fewer than {SMALLEST} images, too few to tell whether an image of another class "
            "belongs to them."
        )
    if suspects.own < WEAK:
        sentences.append(
            f"Only {suspects.own:.0%} of the nearest five have their image's label: these "
            "embeddings cannot show that labels are right."
        )
    return sentences


def write_suspects(file: Path, images: EmbeddedImages, suspects: LabelSuspects) -> None:
    """Write a CSV with a row for each suspect, the most certain first.

    Raises:
        UserError: the file cannot be written.
    """
    features = images.features
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", errors="backslashreplace") as out:
            table = csv.writer(out)
            table.writerow(["image", "label", "suggested", "agreement", "neighbours"])
            for row, suggested, agreement, asked in zip(*suspects[:4], strict=True):
                table.writerow(
                    [
                        images.source.name(int(features.positions[row])),
                        features.classes[int(features.labels[row])],
                        features.classes[int(suggested)],
                        f"{float(agreement):.2f}",
                        int(asked),
                    ]
                )
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None


def _about(tsne: bool) -> str:
    by_tsne = "t-SNE: near points were near, distances between groups mean nothing"
    by_pca = "the two directions with the largest spread (PCA)"
    return (
        f"Embeddings by {by_tsne if tsne else by_pca}. Rest the pointer on a point to see its name."
    )


def _map(images: EmbeddedImages, *, seed: int, tsne: bool) -> str:
    z = normalize(images.features.x)
    points = layout_2d(z, seed=seed, tsne=tsne)
    labels = images.features.labels.clamp(min=0)
    names = [
        f"{images.features.classes[int(label)] if label >= 0 else ''} "
        f"{images.source.name(int(position))}".strip()
        for label, position in zip(images.features.labels, images.features.positions, strict=True)
    ]
    return scatter([(x, y) for x, y in points.tolist()], labels.tolist(), names)


def layout_2d(z: Tensor, *, seed: int, tsne: bool) -> Tensor:
    """Lay embeddings out in two dimensions. [n, d] -> [n, 2]."""
    centred = z - z.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    main_axes = centred @ axes[:50].T
    if not tsne or len(z) < 10:
        return torch.nn.functional.pad(main_axes[:, :2], (0, max(0, 2 - main_axes.shape[1])))
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(z) - 1) / 3)
    tsne_layout = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return torch.from_numpy(tsne_layout.fit_transform(main_axes.numpy()))
