"""Signs without labels, clusters and re-ranking against their papers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import health as oracle

from selfsup.core.numerics import normalize
from selfsup.evaluate.signs_of_health import (
    MEANING,
    alignment,
    alpha_req,
    clustering,
    effective_rank,
    health,
    health_of_views,
    hubness,
    lidar,
    rankme,
    uniformity,
)
from selfsup.search.rerank import rerank


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 25), st.integers(2, 6))
def test_every_sign_is_as_its_paper_defines_it(seed: int, n: int, d: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g).double() * torch.logspace(0, -1, d)
    other = torch.randn(n, d, generator=g).double()
    views = torch.randn(n, 3, d, generator=g).double() + 2 * x[:, None]
    assert rankme(x) == pytest.approx(oracle.rankme(x), rel=1e-6)
    assert effective_rank(x) == pytest.approx(oracle.effective_rank(x), rel=1e-6)
    assert alpha_req(x) == pytest.approx(oracle.alpha_req(x), rel=1e-6)
    assert lidar(views) == pytest.approx(oracle.lidar(views), rel=1e-6)
    assert alignment(x, other) == pytest.approx(oracle.alignment(x, other), rel=1e-6)
    assert uniformity(x, chunk=7) == pytest.approx(oracle.uniformity(x), rel=1e-6)
    signs = health(x)
    assert signs["std"] == pytest.approx(oracle.std_per_dimension(x), rel=1e-6)
    assert signs["cosine"] == pytest.approx(oracle.mean_cosine(x), abs=1e-6)
    z = normalize(x)
    expected = oracle.hubness((z @ z.T).tolist(), 3)
    assert hubness(x, k=3) == pytest.approx(expected, abs=1e-6)


def test_a_collapsed_model_shows_in_every_sign() -> None:
    g = torch.Generator().manual_seed(0)
    well = health(torch.randn(200, 16, generator=g))
    gone = health(torch.ones(200, 16) + 1e-4 * torch.randn(200, 16, generator=g))
    assert gone["RankMe"] < 1.1 < 14 < well["RankMe"]
    assert gone["std"] < 0.01 < 0.9 < well["std"]
    assert gone["cosine"] > 0.99
    assert gone["uniformity"] > -0.01 > -2 > well["uniformity"]


def test_embeddings_that_are_all_equal_have_signs_too() -> None:
    gone = health(torch.ones(30, 4))
    assert (gone["effective rank"], gone["alpha-ReQ"], gone["std"]) == (1.0, float("inf"), 0.0)


def test_every_sign_is_told_in_a_sentence() -> None:
    signs = health(torch.randn(30, 4)) | health_of_views(torch.randn(30, 2, 4))
    assert signs.keys() == MEANING.keys()


def test_views_that_agree_leave_all_directions_to_the_images() -> None:
    g = torch.Generator().manual_seed(1)
    images = torch.randn(300, 1, 6, generator=g)
    noise = torch.randn(300, 4, 6, generator=g)
    alike = lidar(images + 0.01 * noise)
    one_way = lidar(images * torch.tensor([1.0, 0, 0, 0, 0, 0]) + 0.01 * noise)
    assert alike > 5.5
    assert one_way < 1.1


def test_clusters_that_are_the_classes_agree_with_them_wholly() -> None:
    g = torch.Generator().manual_seed(2)
    labels = torch.arange(60) % 3
    x = torch.eye(3)[labels] + 0.01 * torch.randn(60, 3, generator=g)
    assert clustering(x, labels, seed=0) == pytest.approx((1.0, 1.0))
    chance = clustering(torch.randn(60, 3, generator=g), labels, seed=0)
    assert abs(chance.ami) < 0.15


def test_more_clusters_than_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 images do not make 5 clusters"):
        clustering(torch.eye(3), torch.arange(3), seed=0, clusters=5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(6, 22),
    st.sampled_from([(3, 1), (5, 2), (6, 3), (20, 6)]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_re_ranking_is_as_the_authors_code_has_it(
    seed: int, n: int, ks: tuple[int, int], weight: float
) -> None:
    z = normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)))
    similarity = rerank(z[:4], z[4:], k1=ks[0], k2=ks[1], weight=weight)
    expected = torch.tensor(oracle.rerank(z.double(), 4, *ks, weight))
    torch.testing.assert_close(-similarity, expected.float(), rtol=0, atol=2e-5)


def test_re_ranking_of_queries_alone_is_that_of_a_gallery_without_others() -> None:
    z = normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(0)))
    similarity = rerank(z, None, k1=4, k2=2)
    assert similarity.shape == (12, 12)
    both = rerank(z[:6], z[6:], k1=4, k2=2)
    torch.testing.assert_close(similarity[:6, 6:], both)


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"weight": 1.5}])
def test_settings_of_re_ranking_that_make_no_sense_are_an_error(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="k1"):
        rerank(torch.eye(3), torch.eye(3), **wrong)
