"""Self-supervised losses against the papers' formulas in loops, and at their edges."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import selfsupervised as oracle
from small import normal
from torch import Tensor

from selfsup.core.numerics import normalize
from selfsup.losses.clustering import (
    dino,
    moving_centre,
    prototypes_used,
    sinkhorn,
    swapped_prediction,
    swav,
)
from selfsup.losses.covariance import barlow_twins, moving_second_moment, tico, vicreg
from selfsup.losses.distillation import feature_cosine, feature_mse, relational, soft_neighbours
from selfsup.losses.gaussian import lejepa, sigreg
from selfsup.losses.regression import cosine_regression, negative_cosine
from selfsup.methods.nnclr import nearest_rows

Rows = list[list[float]]
sizes = st.tuples(st.integers(2, 6), st.integers(1, 4), st.integers(0, 999))


def rows(x: Tensor) -> Rows:
    return [list(map(float, row)) for row in x]


def by_view(x: Tensor) -> list[Rows]:
    """[n, v, d] as a list of views."""
    return [rows(x[:, view]) for view in range(x.shape[1])]


def length_1(x: Tensor) -> Rows:
    return rows(torch.nn.functional.normalize(x, dim=1))


def close(value: Tensor, expected: float, tolerance: float = 1e-10) -> None:
    assert value.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def a_barlow(a: Tensor, b: Tensor) -> Tensor:
    return barlow_twins(a, b, off_diagonal=0.3, scale=0.7)


def a_vicreg(a: Tensor, b: Tensor) -> Tensor:
    return vicreg(a, b, invariance=2.0, variance=3.0, covariance=0.5)


def a_swav(a: Tensor, b: Tensor) -> Tensor:
    z = torch.stack([a, b], 1)
    layer = normalize(normal(5, a.shape[1], seed=7).to(at_least(a)))
    return swav(z, layer, temperature=0.2, epsilon=0.1, rounds=3)


def a_dino(a: Tensor, b: Tensor) -> Tensor:
    z, w = torch.stack([a, b], 1), normal(5, a.shape[1], seed=7).to(at_least(a))
    known = normal(len(a), 2, a.shape[1], seed=6).to(at_least(a))
    centre = normal(5, seed=8).to(at_least(a))
    return dino(z, w, known, w * 2, centre, temperature=0.2, teacher_temperature=0.1)


def a_lejepa(a: Tensor, b: Tensor) -> Tensor:
    directions = normal(6, a.shape[1], seed=9).to(at_least(a))
    return lejepa(torch.stack([a, b], 1), directions, centres=2, weight=0.3)


def a_tico(a: Tensor, b: Tensor) -> Tensor:
    before = torch.eye(a.shape[1], dtype=at_least(a)) / a.shape[1]
    return tico(a, b, second_moment=moving_second_moment(a, before, beta=0.8), rho=5.0)


def a_relational(a: Tensor, b: Tensor) -> Tensor:
    return relational(a, b, temperature=0.3, teacher_temperature=0.2)


def a_queue(a: Tensor, b: Tensor) -> Tensor:
    anchors = torch.cat([b, normal(5, a.shape[1], seed=7).to(b.dtype)])
    return soft_neighbours(a, b, anchors, temperature=0.3, teacher_temperature=0.2)


def at_least(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "byol": cosine_regression,
    "simsiam": negative_cosine,
    "barlow twins": a_barlow,
    "vicreg": a_vicreg,
    "swav": a_swav,
    "dino": a_dino,
    "lejepa": a_lejepa,
    "tico": a_tico,
    "distil cosine": feature_cosine,
    "distil mse": feature_mse,
    "distil relational": a_relational,
    "distil queue": a_queue,
}


@given(sizes)
def test_regressions_are_the_formula(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    p, z = normal(n, d, seed=seed), normal(n, d, seed=seed + 1)
    close(cosine_regression(p, z), oracle.cosine_regression(rows(p), rows(z)))
    close(negative_cosine(p, z), oracle.negative_cosine(rows(p), rows(z)))


@given(sizes)
def test_covariance_losses_are_the_formula(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    a, b = normal(n, d, seed=seed), normal(n, d, seed=seed + 1)
    close(a_barlow(a, b), oracle.barlow_twins(rows(a), rows(b), 0.3, 0.7))
    close(a_vicreg(a, b), oracle.vicreg(rows(a), rows(b), 2.0, 3.0, 0.5))


@given(sizes)
def test_tico_is_the_formula_and_its_second_moment_is_carried_on(
    size: tuple[int, int, int],
) -> None:
    n, d, seed = size
    before = torch.zeros(d, d, dtype=torch.float64)
    for step in range(3):
        a, b = normal(n, d, seed=seed + step), normal(n, d, seed=seed + step + 9)
        moved = moving_second_moment(a, before, beta=0.8)
        value, expected = oracle.tico(rows(a), rows(b), rows(before), 0.8, 5.0)
        close(tico(a, b, second_moment=moved, rho=5.0), value)
        assert torch.allclose(moved, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
        before = moved


@given(sizes, st.integers(0, 5), st.sampled_from([1.0, 0.05, 0.001]))
def test_sinkhorn_is_the_papers_algorithm(
    size: tuple[int, int, int], rounds: int, epsilon: float
) -> None:
    n, k, seed = size
    scores = normal(n, k, seed=seed)
    actual = sinkhorn(scores, epsilon=epsilon, rounds=rounds)
    expected = torch.tensor(oracle.sinkhorn(rows(scores), epsilon, rounds), dtype=torch.float64)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-10)


@given(sizes, st.integers(2, 5), st.integers(1, 2), st.booleans())
def test_swav_is_the_formula(
    size: tuple[int, int, int], views: int, codes: int, queued: bool
) -> None:
    n, d, seed = size
    z, layer = normal(n, views, d, seed=seed), normalize(normal(5, d, seed=seed + 1))
    queue = normal(3, d, seed=seed + 2) if queued else None
    value = swav(
        z,
        layer,
        temperature=0.3,
        epsilon=0.2,
        rounds=3,
        codes=codes,
        queue=None if queue is None else queue[:, None].expand(-1, codes, -1),
    )
    old = None if queue is None else rows(queue)
    close(value, oracle.swav(by_view(z), rows(layer), 0.3, 0.2, 3, codes, old), 1e-9)


@given(sizes, st.integers(2, 5), st.integers(1, 2))
def test_dino_and_its_centre_are_the_formula(
    size: tuple[int, int, int], views: int, targets: int
) -> None:
    n, d, seed = size
    students, teachers = normal(n, views, d, seed=seed), normal(n, targets, d, seed=seed + 1)
    layer, fixed = normal(5, d, seed=seed + 2), normal(5, d, seed=seed + 3)
    centre = normal(5, seed=seed + 4)
    value = dino(students, layer, teachers, fixed, centre, temperature=0.3, teacher_temperature=0.2)

    def scores(x: Tensor, w: Tensor) -> list[Rows]:
        unit = torch.nn.functional.normalize(x, dim=2)
        return by_view(unit @ torch.nn.functional.normalize(w, dim=1).T)

    taught = scores(teachers, fixed)
    close(value, oracle.dino(scores(students, layer), taught, centre.tolist(), 0.3, 0.2), 1e-9)
    moved = moving_centre(centre, teachers, fixed, momentum=0.7)
    expected = oracle.dino_centre(centre.tolist(), taught, 0.7)
    assert moved.tolist() == pytest.approx(expected, abs=1e-12)


@given(sizes, st.integers(1, 4))
def test_sigreg_and_lejepa_are_the_formula(size: tuple[int, int, int], views: int) -> None:
    n, d, seed = size
    z, directions = normal(n, views, d, seed=seed) * 1.5 + 0.3, normal(7, d, seed=seed + 1)
    close(sigreg(z[:, 0], directions), oracle.sigreg(rows(z[:, 0]), rows(directions)))
    for centres in range(1, views + 1):
        value = lejepa(z, directions, centres=centres, weight=0.2)
        close(value, oracle.lejepa(by_view(z), rows(directions), centres, 0.2))


def test_blocks_do_not_change_sigreg_or_swapped_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z, directions = normal(70, 3, seed=1), normal(90, 3, seed=2)
    crops, layer = normal(23, 5, 3, seed=3), normal(40, 3, seed=4)
    codes = normal(23, 2, 40, seed=5).softmax(2)

    def both() -> tuple[float, float]:
        predicted = swapped_prediction(
            crops, layer, lambda part, t: codes[part, t], targets=2, temperature=0.5
        )
        return sigreg(z, directions).item(), predicted.item()

    at_once = both()
    monkeypatch.setattr("selfsup.losses.row_blocks.BLOCK_SIZE", 40)
    monkeypatch.setattr("selfsup.losses.row_blocks.MIN_ROWS", 3)
    assert both() == pytest.approx(at_once, rel=1e-12)
    expected = [
        oracle.soft_cross_entropy(rows(codes[:, t]), rows(crops[:, s] @ layer.T), 0.5)
        for t in range(2)
        for s in range(5)
        if s != t
    ]
    assert at_once[1] == pytest.approx(sum(expected) / len(expected), rel=1e-10)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "swav"])  # its codes move
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    a, b = normal(5, 3, seed=1).requires_grad_(), normal(5, 3, seed=2)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, b), (a,), eps=1e-6, atol=1e-6)


def test_the_gradient_reaches_prototypes() -> None:
    z, layer = normal(6, 3, 4, seed=1), normal(7, 4, seed=2).requires_grad_()
    fixed, centre = normal(6, 2, 4, seed=3), normal(7, seed=4)
    known = layer.detach().clone()  # finite differences move the layer in place

    def of_dino(w: Tensor) -> Tensor:
        return dino(z, w, fixed, known, centre, temperature=0.3, teacher_temperature=0.2)

    codes = normal(6, 2, 7, seed=5).softmax(2)

    def of_swav(w: Tensor) -> Tensor:
        return swapped_prediction(z, w, lambda p, t: codes[p, t], targets=2, temperature=0.4)

    assert torch.autograd.gradcheck(of_dino, (layer,), eps=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(of_swav, (layer,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["byol", "simsiam", "tico"])
def test_targets_have_no_gradient(name: str) -> None:
    a, b = normal(5, 3, seed=1).requires_grad_(), normal(5, 3, seed=2).requires_grad_()
    LOSSES[name](a, b).backward()
    assert a.grad is not None
    assert b.grad is None


@pytest.mark.parametrize("name", LOSSES)
def test_float32_has_its_digits_and_half_precision_is_raised_to_it(name: str) -> None:
    a, b = normal(40, 8, seed=1), normal(40, 8, seed=2)
    exact = LOSSES[name](a, b).item()
    assert LOSSES[name](a.float(), b.float()).item() == pytest.approx(exact, rel=1e-5)
    for half in (torch.bfloat16, torch.float16):
        low = LOSSES[name](a.to(half), b.to(half))
        assert low.dtype == torch.float32
        exact = LOSSES[name](a.to(half).double(), b.to(half).double()).item()
        assert low.item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name: str) -> None:
    a, b = normal(9, 4, seed=1).float(), normal(9, 4, seed=2).float()
    plain = LOSSES[name](a, b)
    with torch.autocast("cpu", torch.bfloat16):
        inside = LOSSES[name](a, b)
    assert torch.equal(plain, inside)


D = 3
COLLAPSED = {
    "byol": 0.0,
    "simsiam": -1.0,
    "barlow twins": 0.7 * D,
    "vicreg": 3.0 * (1 - math.sqrt(1e-4)),
    "tico": 5.0 * (0.8 / D + 0.2),
    "distil cosine": 0.0,
    "distil mse": 0.0,
    "distil relational": 0.0,
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_collapsed_batch_has_the_value_of_the_docstring_and_no_gradient(name: str) -> None:
    same = torch.ones(6, D, dtype=torch.float64).requires_grad_()
    value = LOSSES[name](same, same.detach())
    value.backward()
    close(value, COLLAPSED[name], 1e-9)
    assert same.grad is not None
    assert float(same.grad.abs().max()) < 1e-9


def test_collapsed_predictions_of_prototypes_are_worth_their_scores() -> None:
    same = torch.ones(6, 2, D, dtype=torch.float64).requires_grad_()
    layer = normalize(normal(5, D, seed=1))
    scores = (normalize(same.detach()[0]) @ layer.T)[0]
    expected = float((scores / 0.1).logsumexp(0) - (scores / 0.1).mean())
    assert expected > math.log(5)
    of_swav = swav(same, layer, temperature=0.1, epsilon=0.05, rounds=3)
    of_dino = dino(
        same, layer, same.detach(), layer, scores, temperature=0.1, teacher_temperature=0.04
    )
    for value in (of_swav, of_dino):
        close(value, expected, 1e-9)
        (gradient,) = torch.autograd.grad(value, same)
        assert float(gradient.abs().max()) > 1e-3


def test_all_prototypes_or_one_or_what_lies_between_are_used() -> None:
    layer = torch.eye(4, dtype=torch.float64)
    used = partial(prototypes_used, temperature=1e-3)
    assert used(layer, layer, None) == pytest.approx(4)
    assert used(layer[[0, 0, 0]], layer, None) == pytest.approx(1)
    assert used(layer[[0, 0, 0, 1]], layer * 2, None) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    assert used(layer[[0, 0]], layer, layer[0]) == pytest.approx(4)  # its centre evens it out


def test_the_number_of_prototypes_of_the_paper_is_exact_a_few_rows_at_a_time() -> None:
    k, n, v = 65_536, 8, 4
    students, layer = normal(n, v, 16, seed=1).float(), normal(k, 16, seed=2).float()
    teachers, centre = normal(n, 2, 16, seed=3).float(), normal(k, seed=4).float() / 10
    value = dino(
        students, layer, teachers, layer, centre, temperature=0.1, teacher_temperature=0.04
    )
    unit = torch.nn.functional.normalize
    w = unit(layer.double(), dim=1)
    learnt = (unit(students.double(), dim=2) @ w.T / 0.1).log_softmax(2)
    taught = ((unit(teachers.double(), dim=2) @ w.T - centre) / 0.04).softmax(2)
    pairs = [(t, s) for t in range(2) for s in range(v) if s != t]
    expected = [-(taught[:, t] * learnt[:, s]).sum(1).mean().item() for t, s in pairs]
    close(value, sum(expected) / len(pairs), 1e-5)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, torch.float32])
def test_sinkhorn_keeps_every_image_and_uses_every_prototype_where_exponentials_overflow(
    half: torch.dtype,
) -> None:
    scores = normalize(normal(64, 16, seed=0)).to(half)
    scores[:, 0] = 1.0  # one prototype that all images like best
    q = sinkhorn(scores, epsilon=0.005, rounds=30)  # exp(200) overflows float32
    assert q.isfinite().all()
    assert torch.allclose(q.sum(1), torch.ones(64), atol=1e-5)
    assert float(q.sum(0).min()) > 1.0  # of 4: an exponential form gives all to the first
    assert float(q.sum(0).max()) < 8.0


def test_a_low_temperature_leaves_losses_finite() -> None:
    z, layer = normal(8, 3, 4, seed=1).float(), normal(6, 4, seed=2).float()
    value = dino(
        z.half(),
        layer.requires_grad_(),
        z[:, :2].half(),
        layer.detach(),
        torch.zeros(6),
        temperature=0.001,
        teacher_temperature=0.0005,
    )
    value.backward()
    assert value.isfinite()
    assert layer.grad is not None
    assert layer.grad.isfinite().all()


def test_zero_rows_have_finite_gradients() -> None:
    for name, loss in LOSSES.items():
        a = normal(5, 3, seed=1)
        a[2] = 0
        a.requires_grad_()
        loss(a, normal(5, 3, seed=2)).backward()
        assert a.grad is not None
        assert float(a.grad.abs().max()) < 1e4, name


@pytest.mark.parametrize(
    "name", ["byol", "simsiam", "barlow twins", "vicreg", "tico", "distil mse"]
)
def test_views_of_two_shapes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="differ"):
        LOSSES[name](normal(4, 3), normal(5, 3))


@pytest.mark.parametrize("name", ["barlow twins", "vicreg", "tico"])
def test_one_image_has_no_variance(name: str) -> None:
    with pytest.raises(ValueError, match="needs 2 or more"):
        LOSSES[name](normal(1, 3), normal(1, 3))


def test_one_view_predicts_nothing() -> None:
    with pytest.raises(ValueError, match="there is only one"):
        swav(normal(4, 1, 3), normal(5, 3), temperature=0.1, epsilon=0.1, rounds=3, codes=1)


@given(sizes)
def test_neighbours_are_those_of_the_highest_cosine(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    z, support = normal(n, d, seed=seed), normal(7, d, seed=seed + 1)
    actual = nearest_rows(z, support)
    for row, best in zip(length_1(z), actual, strict=True):
        cosines = [sum(x * y for x, y in zip(row, s, strict=True)) for s in length_1(support)]
        assert torch.equal(best, support[cosines.index(max(cosines))])
    assert nearest_rows(z, support[:0]) is z


def test_targets_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        negative_cosine(normal(4, 3), normal(4, 1))


def test_the_gradient_of_lejepa_goes_through_a_centre_of_some_of_the_views() -> None:
    z, directions = normal(5, 4, 3, seed=1).requires_grad_(), normal(6, 3, seed=9)

    def loss(x: Tensor) -> Tensor:
        return lejepa(x, directions, centres=2, weight=0.3)

    assert torch.autograd.gradcheck(loss, (z,), eps=1e-6, atol=1e-6)


def test_blocks_do_not_change_the_gradient_of_sigreg(monkeypatch: pytest.MonkeyPatch) -> None:
    z, directions = normal(7, 3, seed=1).requires_grad_(), normal(90, 3, seed=2)
    (at_once,) = torch.autograd.grad(sigreg(z, directions), z)
    monkeypatch.setattr("selfsup.losses.row_blocks.BLOCK_SIZE", 40)
    monkeypatch.setattr("selfsup.losses.row_blocks.MIN_ROWS", 3)
    (in_blocks,) = torch.autograd.grad(sigreg(z, directions), z)
    assert torch.allclose(in_blocks, at_once, rtol=0, atol=1e-12)


def test_autocast_does_not_change_dinos_centre() -> None:
    rows, layer = normal(9, 2, 4, seed=1).float(), normal(5, 4, seed=2).float()
    plain = moving_centre(torch.zeros(5), rows, layer, momentum=0.7)
    with torch.autocast("cpu", torch.bfloat16):
        inside = moving_centre(torch.zeros(5), rows, layer, momentum=0.7)
    assert torch.equal(plain, inside)
