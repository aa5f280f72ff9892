"""Reference values and whole gradients that independent implementations agree on.

vectors.json holds 32 embeddings of width 16 (E, and E_hard whose classes are mixed), proxies W, and
for each case the value and mostly the gradient; a name's parts say which convention it follows.
Cases that show another library's mistake, or a definition of its own, are in LEFT_OUT.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from selfsup.core.numerics import normalize
from selfsup.losses.contrastive import info_nce, nt_xent
from selfsup.losses.measures import Distance
from selfsup.losses.npairs import angular, angular_n_pairs, n_pairs, n_pairs_angular
from selfsup.losses.pairs import generalized_lifted, lifted_structure, pair_contrastive
from selfsup.losses.proxies import arcface, cosface, proxy_anchor
from selfsup.losses.similarity import circle, class_nt_xent, multi_similarity, supcon
from selfsup.losses.triplet import angular_hinge, triplet_margin, triplet_soft, triplet_windows
from selfsup.mining.distances import (
    all_triplets,
    batch_easy_hard,
    batch_hard,
    semi_hard,
    semi_hard_all,
)
from selfsup.mining.multi_similarity import multi_similarity_pairs

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
CASES: dict[str, Any] = VECTORS["losses"]
MINERS: dict[str, Any] = VECTORS["miners"]

LEFT_OUT = {
    "supcon_Lin_T0.1": "the mean inside of the logarithm, which the paper advises against",
    "angular_alpha40_RAW_peer_bug": "the library forgets to normalise the negatives",
    "angular_alpha45_RAW_peer_bug": "the library forgets to normalise the negatives",
    "st_batchhard_SINGLETONS_norm_m0.2": "keeps an image alone in its class as its own positive",
    "npairs_tfa_semantics_rows": "takes column j to have the label of row j, whatever it is",
    "triplet_batchhard_norm_m0.2_torch_builtin_default_eps": "adds 1e-6 to every coordinate",
    "triplet_semihard_TFA_HARDBATCH_norm_m0.2": "falls back to the farthest negative",
    "triplet_semihard_TFA_HARDBATCH_norm_m1.0": "falls back to the farthest negative",
    "tfsim_triplet_hardpos_semihardneg_cosine_soft_HARDBATCH": "falls back where none is farther",
    "tfsim_triplet_hardpos_semihardneg_cosine_m0.2_HARDBATCH": "falls back where none is farther",
    "npairs_dot_raw_with_lp_reg0.02": "adds mean lengths of all rows, not the paper's squares",
}
WRONG_GRADIENT = {
    f"angular_alpha{alpha}_norm_all_pairs": "of anchors and positives normalised once more"
    for alpha in (36, 40, 45)
}


def rows(name: str, dtype: torch.dtype) -> Tensor:
    x = torch.tensor(VECTORS["inputs"][name.removesuffix("_norm")], dtype=torch.float64)
    return (normalize(x) if name.endswith("_norm") else x).to(dtype)


def number(name: str, after: str) -> float:
    """The number that follows `after` in a name."""
    return float(name.split(after)[1].split("_")[0])


def distance_of(name: str) -> Distance:
    if "cosine" in name:
        return Distance("cosine")
    return Distance("squared" if "power2" in name else "euclidean", "norm" in name)


def triplet_case(name: str, x: Tensor, y: Tensor) -> Tensor:
    d, active = distance_of(name), "avgnonzero" in name or "st_BatchAll" in name
    margin = 1.0 if "m1.0" in name else 0.2
    if "TFA" in name:  # gradients are of rows that are not normalised once more
        d = Distance(normalize=False)
        triplets = semi_hard(x, y, distance=d, margin=math.inf)
        return triplet_margin(x, triplets, distance=d, margin=margin)
    if "swap" in name:
        triplets = all_triplets(y)
        return triplet_margin(x, triplets, distance=d, margin=0.2, active_only=True, swap=True)
    semi = "semihard" in name
    if semi or "all" in name.lower():
        return triplet_windows(
            x, y, distance=d, margin=margin, semi_hard=semi, active_only=semi or active
        )[0]
    triplets = batch_hard(x, y, distance=d)
    if "softmargin" in name.lower():
        return triplet_soft(x, triplets, distance=d)
    return triplet_margin(x, triplets, distance=d, margin=margin, active_only=active)


def contrastive_case(name: str, x: Tensor, y: Tensor) -> Tensor:
    hadsell = "hadsell" in name
    reduction: Literal["pairs", "sides", "active"] = "active" if "avgnonzero" in name else "sides"
    return pair_contrastive(
        x,
        y,
        distance=distance_of(name),
        positive_margin=0.2 if "pm0.2" in name else 0.0,
        negative_margin=1.0,
        squared=hadsell,
        reduction="pairs" if hadsell else reduction,
    )


def n_pairs_case(name: str, x: Tensor, y: Tensor) -> Tensor:
    if name.startswith("npair_plus"):
        alpha = number(name, "alpha")
        return n_pairs_angular(
            x, y, normalize=True, temperature=1, regularizer=0, degrees=alpha, weight=2
        )
    regularizer = 0.25 * 0.002 if "sohn" in name else 0.0
    one = n_pairs(x, y, normalize="normalized" in name, temperature=1, regularizer=regularizer)
    if "symmetric" not in name:
        return one
    members = [(y == label).nonzero()[:2, 0] for label in y.unique()]
    swapped = torch.cat([pair.flip(0) for pair in members])
    other = n_pairs(x[swapped], y[swapped], normalize=False, temperature=1, regularizer=0)
    return (one + other) / 2


def angular_case(name: str, x: Tensor, y: Tensor) -> Tensor:
    alpha = number(name, "alpha")
    if "hinge" in name:
        return angular_hinge(x, all_triplets(y), degrees=alpha)
    return (angular_n_pairs if "_mc_" in name else angular)(x, y, degrees=alpha)


def similarity_case(name: str, x: Tensor, y: Tensor) -> Tensor:
    family = name.split("_")[0]
    match family:
        case "supcon":
            return supcon(x, y, temperature=number(name, "_T"))
        case "ntxent" if "two_view" in name:
            return nt_xent(*x.chunk(2), temperature=number(name, "_T"))
        case "ntxent":
            return class_nt_xent(x, y, temperature=number(name, "_T"))
        case "infonce":
            return info_nce(*x.chunk(2), temperature=0.1)
        case "circle":
            return circle(x, y, margin=0.4, gamma=80)
    pairs = multi_similarity_pairs(x, y, epsilon=0.1) if "eps0.1" in name else None
    return multi_similarity(x, y, alpha=2, beta=number(name, "_b"), base=0.5, pairs=pairs)


def loss_of(name: str, x: Tensor, y: Tensor) -> Tensor:
    w = rows("W", x.dtype)
    match name.split("_")[0]:
        case "triplet" | "st":
            return triplet_case(name, x, y)
        case "contrastive":
            return contrastive_case(name, x, y)
        case "npairs" | "npair":
            return n_pairs_case(name, x, y)
        case "angular":
            return angular_case(name, x, y)
        case "lifted":
            return lifted_structure(x, y, distance=distance_of(name), margin=1)
        case "generalized":
            return generalized_lifted(x, y, distance=distance_of(name), margin=1)
        case "arcface":
            return arcface(x, y, w, margin=math.radians(28.6), scale=64)
        case "cosface":
            return cosface(x, y, w, margin=0.35, scale=64)
        case "proxyanchor":
            return proxy_anchor(x, y, w, margin=0.1, alpha=32)
    return similarity_case(name, x, y)


def test_what_is_left_out_is_there_to_be_left_out() -> None:
    assert LEFT_OUT.keys() <= CASES.keys()
    assert WRONG_GRADIENT.keys() <= CASES.keys()
    assert len(CASES) == 98


@pytest.mark.parametrize("name", [name for name in CASES if name not in LEFT_OUT])
def test_a_loss_has_the_reference_value_and_gradient(name: str) -> None:
    case = CASES[name]
    labels = torch.tensor(VECTORS["inputs"][case["labels"]])
    x = rows(case["embeddings"], torch.float64).requires_grad_()
    loss = loss_of(name, x, labels)
    assert loss.item() == pytest.approx(case["value"], rel=0, abs=1e-10)
    if "grad" in case and name not in WRONG_GRADIENT:
        (gradient,) = torch.autograd.grad(loss, x)
        expected = torch.tensor(case["grad"], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)
    single = loss_of(name, rows(case["embeddings"], torch.float32), labels)
    assert single.item() == pytest.approx(case["value"], rel=1e-5, abs=1e-7)


def mined(name: str) -> set[tuple[int, ...]]:
    """The reference's triplets."""
    return set(zip(*MINERS[name]["indices"], strict=True))


def index_set(triplets: tuple[Tensor, ...]) -> set[tuple[int, ...]]:
    return set(zip(*(index.tolist() for index in triplets), strict=True))


def test_miners_choose_what_the_reference_chooses() -> None:
    x, y = rows("E", torch.float32), torch.tensor(VECTORS["inputs"]["labels"])
    unit, raw = Distance(), Distance(normalize=False)
    assert index_set(batch_hard(x, y, distance=unit)) == mined("batch_hard_norm")
    assert index_set(batch_hard(x, y, distance=raw)) == mined("batch_hard_raw")
    assert index_set(semi_hard_all(x, y, distance=unit, margin=0.2)) == mined("semihard_norm_m0.2")
    for positive, name in (
        ("hardest", "batch_easyhard_pos-hard_neg-semihard_norm"),
        ("easiest", "batch_easyhard_default_norm"),
    ):
        a, p, n = batch_easy_hard(x, y, distance=unit, positive=positive, negative="semi-hard")  # type: ignore[arg-type]
        assert index_set((a, p, a, n)) == mined(name)
    a, p, b, n = MINERS["multisimilarity_eps0.1"]["indices"]
    pairs = multi_similarity_pairs(x, y, epsilon=0.1)
    assert index_set((pairs.positive_anchor, pairs.positive)) == set(zip(a, p, strict=True))
    assert index_set((pairs.negative_anchor, pairs.negative)) == set(zip(b, n, strict=True))


def test_among_ties_any_may_be_chosen_and_the_loss_is_the_same() -> None:
    x = torch.tensor(VECTORS["inputs"]["ties_E"], dtype=torch.float64)
    y = torch.tensor(VECTORS["inputs"]["ties_labels"])
    raw = Distance(normalize=False)
    reference = tuple(torch.tensor(i) for i in MINERS["batch_hard_TIES_grid"]["indices"])
    a, p, n = reference
    expected = triplet_margin(x, (a, p, n), distance=raw, margin=0.2)
    actual = triplet_margin(x, batch_hard(x, y, distance=raw), distance=raw, margin=0.2)
    assert actual.item() == expected.item()
