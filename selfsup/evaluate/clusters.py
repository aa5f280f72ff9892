"""Clustering: do groups that k-means finds without labels agree with the labels.

Shape letters: n images, d width.
"""

import warnings
from typing import NamedTuple

from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor

from selfsup.numerics import normalize


class Agreement(NamedTuple):
    """Of clusters and labels; 1 when they are the same."""

    nmi: float
    """Normalised mutual information (arithmetic mean), above 0 by chance when clusters are many."""
    ami: float
    """The same adjusted for chance: 0 for random clusters."""


def clustering(x: Tensor, labels: Tensor, *, seed: int, clusters: int | None = None) -> Agreement:
    """k-means on rows of length 1, as many clusters as labels unless told otherwise. [n, d], [n].

    Raises:
        ValueError: there are fewer images than clusters.
    """
    k = clusters or len(labels.unique())
    if len(x) < k:
        raise ValueError(f"{len(x)} images do not make {k} clusters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        found = KMeans(k, n_init=3, random_state=seed).fit_predict(normalize(x.float()).numpy())
    truth = labels.numpy()
    return Agreement(
        float(normalized_mutual_info_score(truth, found)),
        float(adjusted_mutual_info_score(truth, found)),
    )
