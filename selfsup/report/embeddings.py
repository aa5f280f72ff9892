"""The embeddings in a report: neighbours, a map, worst queries, confused classes, suspected labels.

Shape letters: n images, d width, k neighbours.
"""

import csv
from collections import Counter
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
from selfsup.report.maps import scatter
from selfsup.report.page import heading, paragraph, side_by_side, table
from selfsup.report.pictures import Mark, Shown, neighbour_row, rows, small
from selfsup.search.gallery import Queries
from selfsup.search.neighbours import nearest

SHOWN = 6  # queries of a section
NEIGHBOURS = 7  # of each, that are shown
WEAK = 0.5  # below this fraction of neighbours of the own label, no suspects is no good news
SIDE = 64  # half the shorter side of a stored picture, in pixels
CONFUSED = 15  # pairs of classes that are listed
EXAMPLES = 4  # of them that are shown


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


def learnt(images: EmbeddedImages, *, seed: int, tsne: bool) -> list[str]:
    """Lay out some images with their neighbours, and a map of all."""
    n = len(images.features.x)
    some = torch.randperm(n, generator=generator(seed, 0, "report"))[:SHOWN].sort().values
    return [
        heading("Images and their neighbours"),
        KEY if images.labelled else paragraph(f"{FIRST} The number is the cosine."),
        rows(row_of_neighbours(images, int(i)) for i in some),
        heading("Map"),
        paragraph(_about(tsne)),
        _map(images, seed=seed, tsne=tsne),
    ]


def failures(images: EmbeddedImages, suspects: Path) -> list[str]:
    """Lay out worst queries, confused classes and suspected labels; write all of these to a file.

    Raises:
        UserError: the file cannot be written.
    """
    if not images.labelled:
        return [paragraph("These images have no labels, so nothing can be called a failure.")]
    return [*_worst(images), *_confusions(images), *_label_errors(images, suspects)]


FIRST = "The first image of each row is the query, then come its nearest others, nearest first."
KEY = (
    f'<p class="key">{FIRST} <span class="right">\u2713 of the query\'s class</span>, '
    '<span class="wrong">\u2717 of another class</span>. The number is the cosine, 1 for equal '
    "embeddings. A click enlarges an image.</p>"
)


def row_of_neighbours(images: EmbeddedImages, i: int, title: str = "") -> str:
    """Draw an image and its nearest others, each marked right or wrong if there are labels."""
    labels = images.features.labels
    shown = [_shown(images, i, "query", "query")]
    for cosine, j in zip(
        images.similarity[i, :NEIGHBOURS].tolist(), images.indices[i].tolist(), strict=False
    ):
        mark: Mark = "unmarked"
        if images.labelled:
            mark = "right" if bool(labels[i] == labels[j]) else "wrong"
        shown.append(_shown(images, j, f"{cosine:.2f}", mark))
    return neighbour_row(shown, title)


def _shown(images: EmbeddedImages, row: int, words: str, mark: Mark) -> Shown:
    position = int(images.features.positions[row])
    label = int(images.features.labels[row])
    name = images.source.name(position)
    below = class_name(images.features.classes[label]) if label >= 0 else name
    try:
        image = small(images.source.pixels(position), SIDE)
    except BadImage:
        image = None
    return Shown(image, f"{words}\n{below}", mark, name)


def class_name(name: str) -> str:
    """Name a class whose name is a number alone."""
    return f"class {name}" if name.isdigit() else name


def _worst(images: EmbeddedImages) -> list[str]:
    """Queries with the lowest average precision."""
    try:
        search = retrieval(Queries(images.features.x, images.features.labels))
    except ValueError:  # no label comes twice
        return [paragraph("No class has two images, so no query has a right neighbour.")]
    order = search.figures["mAP"].argsort(stable=True)[:SHOWN]
    return [
        heading("Worst queries"),
        paragraph(
            f"Lowest average precision of {len(search.queries)}; the mean is "
            f"{float(search.figures['mAP'].mean()):.3f}."
        ),
        rows(row_of_neighbours(images, int(search.queries[i])) for i in order),
    ]


def _confusions(images: EmbeddedImages) -> list[str]:
    """Count how often the nearest image is of another class, by pairs of classes."""
    labels, names = images.features.labels, images.features.classes
    nearest_label = labels[images.indices[:, 0]]
    wrong = (labels != nearest_label).nonzero()[:, 0].tolist()
    sizes = Counter(labels.tolist())
    pairs = Counter((int(labels[i]), int(nearest_label[i])) for i in wrong)
    most = pairs.most_common(CONFUSED)
    examples: dict[tuple[int, int], int] = {}
    for i in wrong:
        examples.setdefault((int(labels[i]), int(nearest_label[i])), i)
    counted = [
        [class_name(names[one]), class_name(names[other]), count, f"{count / sizes[one]:.0%}"]
        for (one, other), count in most
    ]
    return [
        heading("Classes that are confused"),
        paragraph(
            f"The nearest image is of another class for {len(wrong)} of {len(labels)} images"
            f" ({len(wrong) / len(labels):.0%}), in {len(pairs)} pairs of classes."
        ),
        side_by_side(
            table(["class", "nearest is", "images", "of the class"], counted),
            rows(row_of_neighbours(images, examples[pair]) for pair, _ in most[:EXAMPLES]),
        )
        if counted
        else "",
    ]


def _label_errors(images: EmbeddedImages, file: Path) -> list[str]:
    suspects = label_suspects(images.features.labels, images.indices)
    write_suspects(file, images, suspects)
    classes = images.features.classes
    shown = zip(suspects.rows[:SHOWN].tolist(), suspects.suggested.tolist(), strict=False)
    return [
        heading("Suspected label errors"),
        *map(paragraph, describe_suspects(suspects, len(images.features.x), file.name)),
        rows(
            row_of_neighbours(images, i, f"Neighbours agree on {class_name(classes[suggested])}")
            for i, suggested in shown
        ),
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
        f"Embeddings by {by_tsne if tsne else by_pca}. Rest the pointer on a point to see its "
        "name; a click on a class shows it alone."
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
    classes = [class_name(name) for name in images.features.classes] if images.labelled else []
    return scatter([(x, y) for x, y in points.tolist()], labels.tolist(), names, classes)


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
