"""Retrieval figures against their definitions, and examples done by hand."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.evaluation import retrieval_of_query
from oracles.health import rerank as rerank_by_the_paper
from torch import Tensor

from selfsup.core.numerics import normalize
from selfsup.evaluate.retrieval_figures import (
    CUTS,
    Retrieval,
    retrieval,
    retrieval_after_reranking,
)
from selfsup.search.gallery import Gallery, Queries
from selfsup.search.products import products
from selfsup.search.ranks import FEW, rank_matches

Kind = Literal["cosine", "euclidean"]
SAME_FORM = [HealthCheck.function_scoped_fixture]
VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
NAMES = {
    **{f"recall@{k}": f"Recall@{k}" for k in CUTS},
    **{f"precision@{k}": f"precision@{k}" for k in CUTS[1:]},
    "r_precision": "R-precision",
    "map_at_r": "MAP@R",
    "ap": "mAP",
    "ap_trapezoid": "mAP (trapezoid)",
    "reciprocal": "MRR",
}


def similarities(a: Tensor, b: Tensor, kind: Kind) -> list[list[float]]:
    if kind == "cosine":
        result: list[list[float]] = products(normalize(a), normalize(b)).tolist()
        return result  # rounded as they are, since rounding decides what is tied
    return [[-float((x - y).square().sum()) for y in b.double()] for x in a.double()]


def valid(queries: Queries, gallery: Gallery, i: int, *, alone: bool) -> list[bool]:
    """Which gallery rows query i meets, by the rules in words."""
    met = []
    for j in range(len(gallery.x)):
        same = queries.labels[i] == gallery.labels[j]
        out = alone and i == j
        if queries.cameras is not None and gallery.cameras is not None:
            out |= bool(same and queries.cameras[i] == gallery.cameras[j])
        if queries.sequences is not None and gallery.sequences is not None:
            out |= bool(queries.sequences[i] == gallery.sequences[j])
        met.append(not out)
    return met


def agrees_with_definitions(
    queries: Queries, gallery: Gallery | None, kind: Kind, memory: int
) -> None:
    other = queries if gallery is None else gallery
    similar = similarities(queries.x, other.x, kind)
    expected = {}
    for i in range(len(queries.x)):
        match = (other.labels == queries.labels[i]).tolist()
        met = valid(queries, other, i, alone=gallery is None)
        figures = retrieval_of_query(similar[i], match, met, CUTS)
        if figures is not None:
            expected[i] = figures
    if not expected:
        with pytest.raises(ValueError, match="has a match"):
            retrieval(queries, gallery, metric=kind, memory=memory)
        return
    result = retrieval(queries, gallery, metric=kind, memory=memory)
    assert result.queries.tolist() == list(expected)
    assert result.left_out == len(queries.x) - len(expected)
    for theirs, ours in NAMES.items():
        assert result.figures[ours].tolist() == pytest.approx(
            [f[theirs] for f in expected.values()]
        )


@settings(max_examples=60, deadline=None, suppress_health_check=SAME_FORM)
@given(st.data())
def test_every_figure_of_every_query_is_as_defined(form: str, data: Any) -> None:
    """Ties, singletons, missing classes, empty galleries after filters, labels above 2^24."""
    seed = data.draw(st.integers(0, 10**6))
    classes, cameras = data.draw(st.integers(1, 6)), data.draw(st.booleans())
    sequences, alone = data.draw(st.booleans()), data.draw(st.booleans())
    kind = data.draw(st.sampled_from(["cosine", "euclidean"]))
    g = torch.Generator().manual_seed(seed)

    def draw_gallery(n: int) -> Gallery:
        return Gallery(
            torch.randint(-1, 2, (n, 2), generator=g).float(),
            2**25 + torch.randint(classes, (n,), generator=g),
            torch.randint(2, (n,), generator=g) if cameras else None,
            torch.randint(7, (n,), generator=g) if sequences else None,
        )

    queries = draw_gallery(data.draw(st.integers(1, 20)))
    gallery = None if alone else draw_gallery(data.draw(st.integers(1, 20)))
    agrees_with_definitions(queries, gallery, kind, data.draw(st.sampled_from([1, 1 << 30])))


@pytest.mark.parametrize("each", [2, 5, FEW, pytest.param(FEW + 30, marks=pytest.mark.slow)])
def test_small_and_large_classes_are_counted_alike(form: str, each: int) -> None:
    g = torch.Generator().manual_seed(each)
    labels = torch.arange(3 * each) // each
    x = torch.randint(-3, 4, (len(labels), 3), generator=g).float()
    order = torch.randperm(len(labels), generator=g)
    agrees_with_definitions(Queries(x[order], labels[order]), None, "euclidean", 1 << 30)
    agrees_with_definitions(Queries(x[order], labels[order]), None, "cosine", 1 << 30)


@pytest.mark.slow
def test_more_rows_than_a_tile_are_counted_alike_in_both_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.randperm(1300, generator=g) // 4
    x = torch.randint(-2, 3, (1300, 5), generator=g).float() + 0.5
    result = []
    for available in (True, False):
        monkeypatch.setattr("selfsup.core.compiled.available", lambda a=available: a)
        result.append(next(iter(rank_matches(Queries(x, labels), None, memory=1 << 40))).ranks)
    (part,) = [result[0]]
    whole = torch.cat([r.ranks for r in rank_matches(Queries(x, labels), None)])
    assert torch.equal(part, whole)


def line(*places: float) -> Tensor:
    """Points on a line, for the euclidean distance."""
    return torch.tensor(places)[:, None]


def on_a_line(places: list[float], labels: list[int]) -> Retrieval:
    return retrieval(Queries(line(*places), torch.tensor(labels)), metric="euclidean")


def test_five_images_on_a_line_give_what_a_person_works_out(form: str) -> None:
    # A at 0, 1 and 10; B at 3 and 4.4. Neighbours of 0: A B B A; of 1: A B B A; of 10: B B A A;
    # of 3: B A A A; of 4.4: B A A A
    result = on_a_line([0, 1, 10, 3, 4.4], [0, 0, 0, 1, 1]).figures
    assert result["Recall@1"].tolist() == [1, 1, 0, 1, 1]
    assert result["Recall@2"].tolist() == [1, 1, 0, 1, 1]
    assert result["Recall@4"].tolist() == [1, 1, 1, 1, 1]
    assert result["R-precision"].tolist() == [0.5, 0.5, 0.0, 1.0, 1.0]
    assert result["MAP@R"].tolist() == [0.5, 0.5, 0.0, 1.0, 1.0]
    assert result["mAP"].tolist() == pytest.approx([0.75, 0.75, (1 / 3 + 2 / 4) / 2, 1, 1])


def test_map_at_r_counts_an_early_match_more_than_a_late_one(form: str) -> None:
    early = on_a_line([0, 1, 2, 9], [0, 0, 1, 0]).figures
    late = on_a_line([0, 2, 1, 9], [0, 0, 1, 0]).figures
    assert early["R-precision"][0] == late["R-precision"][0] == 0.5
    assert early["MAP@R"][0].item() == pytest.approx(1 / 2)  # (1/1) / 2
    assert late["MAP@R"][0].item() == pytest.approx(1 / 4)  # (1/2) / 2


def test_queries_without_a_match_are_left_out_and_counted_but_stay_neighbours(form: str) -> None:
    # the lonely image at 1 is nearest to both others
    result = on_a_line([0, 1, 2.5, 50], [7, 3, 7, 4])
    assert result.left_out == 2
    assert result.figures["Recall@1"].tolist() == [0, 0]
    assert result.figures["Recall@2"].tolist() == [1, 1]


def test_a_collapsed_model_finds_nothing_whatever_the_order_of_images(form: str) -> None:
    result = retrieval(Queries(torch.ones(12, 4), torch.arange(12) // 3)).figures
    assert result["Recall@8"].sum() == 0
    assert result["MAP@R"].sum() == 0


def test_twins_of_another_class_come_before_a_match(form: str) -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    result = retrieval(Queries(x, torch.tensor([0, 0, 1, 1]))).figures
    assert result["Recall@1"].tolist() == [0, 0, 0, 0]
    assert result["Recall@2"].tolist() == [1, 1, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_neither_the_order_of_rows_nor_the_memory_changes_a_figure(form: str, alone: bool) -> None:
    g = torch.Generator().manual_seed(2)
    x, labels = torch.randn(600, 8, generator=g), torch.randint(60, (600,), generator=g)
    order = torch.randperm(600, generator=g)
    gallery = None if alone else Gallery(x.flip(0) + 0.1, labels.flip(0))
    whole = retrieval(Queries(x, labels), gallery)
    mixed = retrieval(Queries(x[order], labels[order]), gallery, memory=1)
    for name, values in whole.figures.items():
        back = torch.empty(600, dtype=torch.float64)
        back[order[mixed.queries]] = mixed.figures[name]
        torch.testing.assert_close(back[whole.queries], values, rtol=0, atol=1e-12)


def test_cosine_and_euclidean_differ_where_lengths_differ(form: str) -> None:
    features = torch.tensor([[1.0, 0.0], [10.0, 0.0], [0.9, 0.5], [9.0, 5.0]])
    queries = Queries(features, torch.tensor([0, 0, 1, 1]))
    assert retrieval(queries).figures["Recall@1"].tolist() == [1] * 4
    assert retrieval(queries, metric="euclidean").figures["Recall@1"].tolist() == [0] * 4


@pytest.mark.parametrize("hard", [False, True])
def test_figures_are_those_of_the_reference_vectors(form: str, hard: bool) -> None:
    inputs = VECTORS["inputs"]
    x = torch.tensor(inputs["E_hard" if hard else "E"])
    key = "retrieval_hard_norm_self_excluded" if hard else "retrieval_norm_self_excluded"
    expected = VECTORS["metrics"][key]
    result = retrieval(Queries(x, torch.tensor(inputs["labels"]))).figures
    means = {name: values.mean().item() for name, values in result.items()}
    theirs = expected["peer"]
    assert means["MAP@R"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert means["mAP"] == pytest.approx(theirs["mean_average_precision"], abs=1e-6)
    assert means["R-precision"] == pytest.approx(theirs["r_precision"], abs=1e-6)
    assert means["MRR"] == pytest.approx(theirs["mean_reciprocal_rank"], abs=1e-6)
    for k, recall in expected["recall_at_k"].items():
        assert means[f"Recall@{k}"] == pytest.approx(recall, abs=1e-6)


def test_camera_filtered_figures_are_those_of_the_reference_vectors(form: str) -> None:
    inputs, expected = VECTORS["inputs"], VECTORS["metrics"]["reid_camera_filtered"]
    x, labels, cameras = (torch.tensor(inputs[name]) for name in ("E_hard", "labels", "cameras"))
    sides = [Queries(x[rows], labels[rows], cameras[rows]) for rows in (slice(12), slice(12, None))]
    result = retrieval(sides[0], sides[1], cuts=range(1, 11))
    skipped = set(range(12)) - set(result.queries.tolist())
    assert sorted(skipped) == expected["skipped_queries"]
    cmc = [result.figures[f"Recall@{k}"].mean().item() for k in range(1, 11)]
    assert cmc == pytest.approx(expected["cmc"], abs=1e-6)
    assert result.figures["mAP"].mean().item() == pytest.approx(expected["mAP"], abs=1e-6)
    market = result.figures["mAP (trapezoid)"].mean().item()
    assert market == pytest.approx(expected["mAP_market_trapezoid"], abs=1e-6)


def test_no_two_images_of_a_class_are_an_error() -> None:
    with pytest.raises(ValueError, match="none of the 3"):
        retrieval(Queries(torch.eye(3), torch.tensor([0, 1, 2])))


def test_an_empty_gallery_is_an_error() -> None:
    with pytest.raises(ValueError, match="gallery is empty"):
        retrieval(
            Queries(torch.eye(3), torch.arange(3)), Queries(torch.zeros(0, 3), torch.zeros(0))
        )


def test_random_features_have_the_r_precision_of_chance() -> None:
    g = torch.Generator().manual_seed(4)
    queries = Queries(torch.randn(40, 3, generator=g), torch.arange(40) % 2)
    result = float(retrieval(queries).figures["R-precision"].mean())
    assert math.isclose(result, 19 / 39, abs_tol=0.1)


def test_figures_after_re_ranking_are_of_the_re_ranked_order() -> None:
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (24,), generator=g)
    x = normalize(torch.randn(24, 4, generator=g) + torch.eye(4)[labels])
    distances = rerank_by_the_paper(x.double(), 8, 20, 6, 0.3)
    result = retrieval_after_reranking(
        Queries(x[:8], labels[:8]), Gallery(x[8:], labels[8:])
    ).figures
    for i in range(8):
        match = (labels[8:] == labels[i]).tolist()
        expected = retrieval_of_query([-d for d in distances[i]], match, [True] * 16, CUTS)
        assert expected is not None
        assert result["mAP"][i].item() == pytest.approx(expected["ap"])


def test_re_ranking_among_queries_leaves_each_out_of_its_own_gallery() -> None:
    labels = torch.arange(24) % 4
    x = torch.eye(4)[labels] + 0.01 * torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    assert retrieval_after_reranking(Queries(x, labels)).figures["mAP"].tolist() == [1.0] * 24
    lonely = torch.arange(24)
    lonely[1] = 0
    result = retrieval_after_reranking(Queries(x, lonely))
    assert (result.queries.tolist(), result.left_out) == ([0, 1], 22)


def test_re_ranking_that_does_not_fit_says_how_much_it_holds() -> None:
    with pytest.raises(ValueError, match="give more --memory"):
        retrieval_after_reranking(Queries(torch.eye(800), torch.arange(800) // 2), memory=1 << 20)


def test_where_every_match_is_of_the_camera_or_sequence_that_is_said() -> None:
    x, labels, one = torch.eye(4), torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.int64)
    assert retrieval(Queries(x, labels)).left_out == 0
    for queries, words in (
        (Queries(x, labels, cameras=one), "of its label by another camera$"),
        (Queries(x, labels, sequences=one), "of its label in another sequence$"),
        (Queries(x, torch.arange(4)), "of its label$"),
    ):
        with pytest.raises(ValueError, match=words):
            retrieval(queries)
