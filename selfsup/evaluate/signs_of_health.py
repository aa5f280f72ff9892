"""Signs of embeddings that need no labels, each with its meaning in plain words.

Shape letters: n embeddings, d width, o objects, v views of each.
"""

import warnings
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor

from selfsup.core.numerics import normalize, singular_values
from selfsup.search.neighbours import nearest
from selfsup.search.products import MEMORY

MEANING = {
    "RankMe": "directions that the features really use; more is better for the same network",
    "effective rank": "the same after the mean is taken away",
    "alpha-ReQ": "how fast the spectrum falls: near 1 is best, far above 1 few directions hold all",
    "LiDAR": "directions in which images differ more than views of one image do",
    "alignment": "squared distance of two views of an image: near 0 means that views do not matter",
    "uniformity": "how evenly the sphere is filled: 0 is collapsed, -4 about the best",
    "std": "spread of each dimension: 1 on an even sphere, 0 when all embeddings are equal",
    "cosine": "mean similarity of two different images: near 1 everything looks the same",
    "hubness": "skewness of how often an image is a neighbour: above 2, few images are everyone's",
    "anti-hubs": "fraction of images that are nobody's neighbour",
}
"""Each sign in a sentence, for people."""


def exp_entropy(fractions: Tensor) -> float:
    """Compute exp of the entropy of fractions, which are not scaled to sum 1. [n]."""
    return float(torch.exp(-(fractions * fractions.clamp(min=1e-30).log()).sum()))


def rankme(x: Tensor) -> float:
    """Compute RankMe: exp of the entropy of the normalised singular values, 1e-7 added to each.

    Source: Garrido et al. 2023, https://arxiv.org/abs/2210.02885, equations 1 and 2.

    Args:
        x: [n, d] features, in any scale.
    """
    values = singular_values(x)
    return exp_entropy(values / values.sum() + 1e-7)


def effective_rank(x: Tensor) -> float:
    """Compute exp of the entropy of the singular values of centred features; 1 if all are equal.

    Source: Roy & Vetterli 2007, definition 1.
    """
    values = singular_values(x.double() - x.double().mean(0))
    total = values.sum()
    return 1.0 if float(total) < 1e-6 * float(x.double().norm()) else exp_entropy(values / total)


def alpha_req(x: Tensor) -> float:
    """Compute alpha-ReQ: minus the slope of log eigenvalues of the covariance over log ranks.

    Source: Agrawal et al. 2022 (alpha-ReQ). All eigenvalues above 1e-12 of the largest have equal
    weight.
    """
    values = singular_values(x.double() - x.double().mean(0)).square().flip(0)
    values = values[values > 1e-12 * values.max()]
    if len(values) < 2:
        return float("inf")  # one direction holds everything
    rank = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    height, centred = values.log(), rank - rank.mean()
    return -float((centred * (height - height.mean())).sum() / centred.square().sum())


def lidar(views: Tensor, *, delta: float = 1e-4) -> float:
    """Compute LiDAR: exp of the entropy of between- against within-object eigenvalues.

    Source: Thilak et al. 2023, https://arxiv.org/abs/2312.04000, equations 1 to 4: means over
    objects, and over objects and views; delta times the identity is added to the within-object
    covariance.

    Args:
        views: [o, v, d] embeddings of several views of each object.
        delta: keeps the within-object covariance invertible.
    """
    x = views.double()
    o, v, d = x.shape
    middle = x.mean(1)  # [o, d]
    centred = middle - middle.mean(0)
    between = centred.T @ centred / o
    residual = (x - middle[:, None]).flatten(0, 1)
    within = residual.T @ residual / (o * v) + delta * torch.eye(d, dtype=torch.float64)
    factor = torch.linalg.cholesky(within)
    half = torch.linalg.solve_triangular(factor, between, upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
    values = torch.linalg.eigvalsh((whitened + whitened.T) / 2).clamp(min=0)
    return exp_entropy(values / values.sum().clamp(min=1e-30) + 1e-7)


def alignment(a: Tensor, b: Tensor) -> float:
    """Compute the mean squared distance of two views, rows scaled to length 1. [n, d] both.

    Source: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, section 4, alpha = 2.
    """
    return float((normalize(a.double()) - normalize(b.double())).square().sum(1).mean())


def uniformity(x: Tensor, *, chunk: int = 1024) -> float:
    """Compute the log of the mean over pairs of exp(-2 squared distance), rows scaled to length 1.

    Source: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, section 4, t = 2.
    """
    z = normalize(x.double())
    total = sum(float((4 * (block @ z.T) - 4).exp().sum()) for block in z.split(chunk))
    own = float((4 * z.square().sum(1) - 4).exp().sum())
    return float(torch.tensor((total - own) / (len(z) * (len(z) - 1))).log())


def hubness(x: Tensor, *, k: int = 10, memory: int = MEMORY) -> tuple[float, float]:
    """Compute the skewness of how often a row is a neighbour, and the fraction that never is.

    Source: Radovanovic et al. 2010, JMLR 11, section 2. The skewness is 0 where all rows are
    neighbours equally often.
    """
    z = normalize(x.float())
    counts = torch.zeros(len(z))
    for block in nearest(z, z, k, exclude_self=True, memory=memory):
        counts += torch.bincount(block.indices.flatten(), minlength=len(z))
    centred = counts.double() - counts.double().mean()
    spread = centred.square().mean().sqrt()
    skewness = float((centred**3).mean() / spread**3) if float(spread) else 0.0
    return skewness, float((counts == 0).double().mean())


def health(x: Tensor) -> dict[str, float]:
    """Compute every sign that one embedding an image allows. [n, d]."""
    z = normalize(x.double())
    n, d = z.shape
    skewness, anti_hubs = hubness(x)
    return {
        "RankMe": rankme(x),
        "effective rank": effective_rank(x),
        "alpha-ReQ": alpha_req(x),
        "uniformity": uniformity(x),
        "std": float(z.std(0, correction=0).mean()) * d**0.5,
        "cosine": float((z.sum(0).square().sum() - z.square().sum()) / (n * (n - 1))),
        "hubness": skewness,
        "anti-hubs": anti_hubs,
    }


def health_of_views(views: Tensor) -> dict[str, float]:
    """Compute the signs that need several views of each image. [o, v, d]."""
    return {"LiDAR": lidar(views), "alignment": alignment(views[:, 0], views[:, 1])}


class Agreement(NamedTuple):
    """Agreement of clusters and labels; 1 when they are the same."""

    nmi: float
    """Normalised mutual information (arithmetic mean), above 0 by chance when clusters are many."""
    ami: float
    """The same adjusted for chance: 0 for random clusters."""


def clustering(x: Tensor, labels: Tensor, *, seed: int, clusters: int | None = None) -> Agreement:
    """Cluster rows of length 1 by k-means and compare with labels. [n, d], [n].

    There are as many clusters as labels, or `clusters` of them.

    Raises:
        ValueError: there are fewer images than clusters.
    """
    k = clusters or len(labels.unique())
    if len(x) < k:
        raise ValueError(f"{len(x)} images do not make {k} clusters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        assigned = KMeans(k, n_init=3, random_state=seed).fit_predict(normalize(x.float()).numpy())
    truth = labels.numpy()
    return Agreement(
        float(normalized_mutual_info_score(truth, assigned)),
        float(adjusted_mutual_info_score(truth, assigned)),
    )
