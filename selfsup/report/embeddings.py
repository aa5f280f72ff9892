"""What a report shows of embeddings: neighbours, worst queries, doubtful labels, and a map.

Shape letters: n images, d width, k neighbours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.numerics import normalize
from selfsup.core.seeds import generator
from selfsup.data.decode import BadImage
from selfsup.data.sources import Source
from selfsup.evaluate.features import Features
from selfsup.evaluate.retrieval_figures import retrieval
from selfsup.report.curves import scatter
from selfsup.report.page import blank, grid, heading, paragraph, picture, small
from selfsup.search.neighbours import nearest
from selfsup.search.sides import Side

SHOWN = 6  # queries of a section
NEAR = 7  # neighbours of each
DOUBT = 0.8  # of the votes of neighbours go to one other label
SIDE = 84  # pixels of a picture


class Look(NamedTuple):
    """Images, their embeddings and neighbours."""

    source: Source
    features: Features
    similar: Tensor
    """float32 [n, k]."""
    places: Tensor
    """int64 [n, k], rows of the features."""

    @property
    def labelled(self) -> bool:
        """Whether every image has a label, and there are two or more."""
        labels = self.features.labels
        return bool((labels >= 0).all()) and len(labels.unique()) > 1


def look(source: Source, features: Features) -> Look:
    """With the nearest others of each image."""
    z = normalize(features.x)
    parts = list(nearest(z, z, 20, alone=True))
    similar = torch.cat([part.similar for part in parts])
    return Look(source, features, similar, torch.cat([part.places for part in parts]))


def sections(seen: Look, *, seed: int, tsne: bool) -> list[str]:
    """All of them, as HTML."""
    n = len(seen.features.x)
    some = torch.randperm(n, generator=generator(seed, 0, "report"))[:SHOWN].sort().values
    parts = [
        heading("Images and their neighbours"),
        paragraph(
            "The first of each row is the query; + marks neighbours of its label, x others."
            if seen.labelled
            else "The first of each row is the query; the number is the cosine."
        ),
        *(_row(seen, int(i)) for i in some),
    ]
    if seen.labelled:
        parts += _worst(seen) + _doubtful(seen)
    return [*parts, heading("Map"), paragraph(_about(tsne)), _map(seen, seed=seed, tsne=tsne)]


def _row(seen: Look, i: int) -> str:
    pictures = [_picture(seen, i, "query", right=None)]
    labels = seen.features.labels
    for similar, j in zip(seen.similar[i, :NEAR].tolist(), seen.places[i].tolist(), strict=False):
        right = bool(labels[i] == labels[j]) if seen.labelled else None
        mark = "" if right is None else "+ " if right else "x "
        pictures.append(_picture(seen, j, f"{mark}{similar:.2f}", right=right))
    return grid(pictures, "row")


def _picture(seen: Look, row: int, words: str, *, right: bool | None) -> str:
    position = int(seen.features.positions[row])
    label = int(seen.features.labels[row])
    told = f"{words}\n{seen.features.classes[label] if label >= 0 else seen.source.name(position)}"
    kind = "" if right is None else "right" if right else "wrong"
    try:
        image = small(seen.source.pixels(position), SIDE)
    except BadImage:
        return blank(f"{told}\ncannot be read", width=SIDE)
    large = min(image.shape[:2]) > 48
    return picture(image, told, width=SIDE, jpeg=large, kind=kind)


def _worst(seen: Look) -> list[str]:
    """Queries with the lowest average precision."""
    try:
        found = retrieval(Side(seen.features.x, seen.features.labels))
    except ValueError:  # no label comes twice
        return []
    order = found.figures["mAP"].argsort(stable=True)[:SHOWN]
    return [
        heading("Worst queries"),
        paragraph(
            f"Lowest average precision of {len(found.queries)}; the mean is "
            f"{float(found.figures['mAP'].mean()):.3f}."
        ),
        *(_row(seen, int(found.queries[i])) for i in order),
    ]


def doubtful(labels: Tensor, places: Tensor) -> Tensor:
    """Rows whose neighbours agree on one other label, the most certain first. [n], [n, k]."""
    near = labels[places]
    usual = near.mode(dim=1).values
    share = (near == usual[:, None]).double().mean(1)
    rows = ((share >= DOUBT) & (usual != labels)).nonzero()[:, 0]
    return rows[share[rows].argsort(descending=True, stable=True)]


def _doubtful(seen: Look) -> list[str]:
    rows = doubtful(seen.features.labels, seen.places)
    told = (
        f"{len(rows)} of {len(seen.features.x)} images have neighbours of which "
        f"{DOUBT:.0%} or more agree on one other label."
    )
    return [
        heading("Suspected label errors"),
        paragraph(told),
        *(_row(seen, int(i)) for i in rows[:SHOWN]),
    ]


def _about(tsne: bool) -> str:
    how = "t-SNE: near points were near, distances between groups say nothing"
    plain = "the two directions with the largest spread (PCA)"
    return f"Embeddings by {how if tsne else plain}. Rest the pointer on a point for its name."


def _map(seen: Look, *, seed: int, tsne: bool) -> str:
    z = normalize(seen.features.x)
    points = flat(z, seed=seed, tsne=tsne)
    labels = seen.features.labels.clamp(min=0)
    names = [
        f"{seen.features.classes[int(label)] if label >= 0 else ''} "
        f"{seen.source.name(int(position))}".strip()
        for label, position in zip(seen.features.labels, seen.features.positions, strict=True)
    ]
    return scatter([(x, y) for x, y in points.tolist()], labels.tolist(), names)


def flat(z: Tensor, *, seed: int, tsne: bool) -> Tensor:
    """Embeddings in two dimensions. [n, d] -> [n, 2]."""
    centred = z - z.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    two = centred @ axes[:50].T
    if not tsne or len(z) < 10:
        return torch.nn.functional.pad(two[:, :2], (0, max(0, 2 - two.shape[1])))
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(z) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(two.numpy())
    return torch.from_numpy(found)
