"""Losses: pure functions of the embeddings of the whole global batch, by family.

Tensors in, a scalar out; no state, no process, float32 inside. `Distance` is shared with the
miners of `selfsup.mining`. Labels may stay on the CPU while the embeddings are on a GPU: then most
losses and miners do not wait for it, which they do once for labels that lie there.
"""

from selfsup.losses.clustering import dino, ibot, sinkhorn, swapped_prediction, swav
from selfsup.losses.contrastive import dcl, dclw, info_nce, nt_xent
from selfsup.losses.covariance import barlow_twins, tico, vicreg
from selfsup.losses.distillation import (
    feature_cosine,
    feature_mse,
    relational,
    soft_neighbours,
)
from selfsup.losses.entropy import koleo
from selfsup.losses.gaussian import lejepa, sigreg
from selfsup.losses.measures import Distance, Similarity
from selfsup.losses.npairs import angular, angular_n_pairs, n_pairs, n_pairs_angular
from selfsup.losses.pairs import generalized_lifted, lifted_structure, pair_contrastive
from selfsup.losses.proxies import arcface, cosface, proxy_anchor
from selfsup.losses.reconstruction import masked_pixels
from selfsup.losses.regression import cosine_regression, negative_cosine
from selfsup.losses.relations import Pairs, Triplets
from selfsup.losses.similarity import circle, class_nt_xent, multi_similarity, supcon
from selfsup.losses.triplet import angular_hinge, triplet_margin, triplet_soft, triplet_windows

__all__ = [
    "Distance",
    "Pairs",
    "Similarity",
    "Triplets",
    "angular",
    "angular_hinge",
    "angular_n_pairs",
    "arcface",
    "barlow_twins",
    "circle",
    "class_nt_xent",
    "cosface",
    "cosine_regression",
    "dcl",
    "dclw",
    "dino",
    "feature_cosine",
    "feature_mse",
    "generalized_lifted",
    "ibot",
    "info_nce",
    "koleo",
    "lejepa",
    "lifted_structure",
    "masked_pixels",
    "multi_similarity",
    "n_pairs",
    "n_pairs_angular",
    "negative_cosine",
    "nt_xent",
    "pair_contrastive",
    "proxy_anchor",
    "relational",
    "sigreg",
    "sinkhorn",
    "soft_neighbours",
    "supcon",
    "swapped_prediction",
    "swav",
    "tico",
    "triplet_margin",
    "triplet_soft",
    "triplet_windows",
    "vicreg",
]
