"""Losses of distillation against the papers' formulas in loops, and at their edges."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import distillation as oracle
from small import normal
from torch import Tensor

from selfsup.losses.distillation import (
    divergence_of_rows,
    feature_cosine,
    feature_mse,
    relational,
    soft_neighbours,
)

sizes = st.tuples(st.integers(2, 6), st.integers(1, 4), st.integers(0, 999))
temperatures = st.sampled_from([(0.3, 0.2), (0.04, 0.04), (0.2, 0.01)])


def close(value: Tensor, expected: float) -> None:
    assert value.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(sizes)
def test_cosine_and_mse_are_the_formula(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    student, teacher = normal(n, d, seed=seed), normal(n, d, seed=seed + 1)
    rows = student.tolist(), teacher.tolist()
    close(feature_cosine(student, teacher), oracle.feature_cosine(*rows))
    close(feature_mse(student, teacher), oracle.feature_mse(*rows))


@given(sizes, temperatures)
def test_relational_is_the_formula_with_a_teacher_of_another_width(
    size: tuple[int, int, int], temperature: tuple[float, float]
) -> None:
    n, d, seed = size
    student, teacher = normal(n, d, seed=seed), normal(n, d + 2, seed=seed + 1)
    value = relational(
        student, teacher, temperature=temperature[0], teacher_temperature=temperature[1]
    )
    close(value, oracle.relational(student.tolist(), teacher.tolist(), *temperature))


@given(sizes, temperatures, st.integers(1, 7))
def test_soft_neighbours_are_the_formula(
    size: tuple[int, int, int], temperature: tuple[float, float], m: int
) -> None:
    n, d, seed = size
    student, teacher, anchors = (normal(k, d, seed=seed + i) for i, k in enumerate((n, n, m)))
    value = soft_neighbours(
        student, teacher, anchors, temperature=temperature[0], teacher_temperature=temperature[1]
    )
    rows = student.tolist(), teacher.tolist(), anchors.tolist()
    close(value, oracle.soft_neighbours(*rows, *temperature))


def test_a_student_with_the_teachers_similarities_has_no_divergence() -> None:
    teacher = normal(7, 4, seed=1)
    turned = teacher @ torch.linalg.qr(normal(4, 4, seed=2))[0] * 3  # cosines stay
    value = relational(turned, teacher, temperature=0.1, teacher_temperature=0.1)
    assert value.item() == pytest.approx(0, abs=1e-12)


def test_an_image_without_others_compares_with_nothing() -> None:
    with pytest.raises(ValueError, match="needs 2 or more"):
        relational(normal(1, 3), normal(1, 3), temperature=0.1, teacher_temperature=0.1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": feature_cosine,
    "mse": feature_mse,
    "relational": lambda s, t: relational(s, t, temperature=0.2, teacher_temperature=0.1),
    "queue": lambda s, t: soft_neighbours(
        s, t, t.flip(0) + 0.3, temperature=0.2, teacher_temperature=0.1
    ),
}


@pytest.mark.parametrize("name", ["relational", "queue"])
def test_blocks_of_rows_change_neither_value_nor_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = normal(23, 3, seed=1).requires_grad_(), normal(23, 3, seed=2)

    def value_and_gradient() -> tuple[float, Tensor]:
        value = LOSSES[name](student, teacher)
        return value.item(), torch.autograd.grad(value, student)[0]

    value, gradient = value_and_gradient()
    monkeypatch.setattr("selfsup.losses.row_blocks.BLOCK_SIZE", 40)
    monkeypatch.setattr("selfsup.losses.row_blocks.MIN_ROWS", 3)
    in_blocks, gradient_in_blocks = value_and_gradient()
    assert in_blocks == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(gradient_in_blocks, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_teacher_has_no_gradient(name: str) -> None:
    student, teacher = normal(5, 3, seed=1).requires_grad_(), normal(5, 3, seed=2).requires_grad_()
    gradients = torch.autograd.grad(
        LOSSES[name](student, teacher), (student, teacher), allow_unused=True
    )
    assert gradients[0] is not None
    assert gradients[1] is None


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_of_zeros_of_the_teacher_leaves_loss_and_gradient_finite(name: str) -> None:
    student, teacher = normal(5, 3, seed=1).requires_grad_(), normal(5, 3, seed=2)
    teacher[2] = 0  # an image that could not be read
    value = LOSSES[name](student, teacher)
    assert value.isfinite()
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.isfinite().all()
    if name == "cosine":
        assert not gradient[2].any()


def test_a_collapsed_student_misses_the_teachers_entropy() -> None:
    n = 6
    same, teacher = torch.ones(n, 3, dtype=torch.float64).requires_grad_(), torch.eye(n).double()
    value = relational(same, teacher, temperature=0.1, teacher_temperature=0.1)
    assert value.item() == pytest.approx(0, abs=1e-12)  # such a teacher sees all others alike
    near = normal(n, 4, seed=3)
    entropy = relational(same, near, temperature=0.1, teacher_temperature=0.1)
    probabilities = []
    unit = torch.nn.functional.normalize(near, dim=1)
    for i in range(n):
        others = [float(unit[i] @ unit[j]) / 0.1 for j in range(n) if j != i]
        probabilities.append(torch.tensor(others, dtype=torch.float64).softmax(0))
    mean = sum(float(-(p * p.log()).sum()) for p in probabilities) / n
    assert entropy.item() == pytest.approx(math.log(n - 1) - mean)
    assert not torch.autograd.grad(entropy, same)[0].abs().gt(1e-9).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feature_mse(normal(4, 3), normal(4, 1)), "differ"),
        (lambda: feature_cosine(normal(4, 3), normal(3, 3)), "differ"),
        (
            lambda: relational(normal(4, 3), normal(5, 3), temperature=1, teacher_temperature=1),
            "student has 4 rows and teacher 5",
        ),
        (
            lambda: relational(normal(4, 3), normal(4, 3), temperature=1, teacher_temperature=0),
            "temperatures must be above 0, not 1 and 0",
        ),
        (
            lambda: soft_neighbours(
                *(normal(4, d) for d in (3, 3, 2)), temperature=1, teacher_temperature=1
            ),
            "need one width and an anchor",
        ),
        (
            lambda: soft_neighbours(
                normal(4, 3), normal(4, 3), normal(0, 3), temperature=1, teacher_temperature=1
            ),
            "need one width and an anchor",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_column_that_is_left_out_counts_for_nothing() -> None:
    logits, teacher = normal(3, 4, seed=1), normal(3, 4, seed=2)
    left_out = torch.tensor([[1], [1], [1]])
    without = [0, 2, 3]
    torch.testing.assert_close(
        divergence_of_rows(logits, teacher, left_out=left_out),
        divergence_of_rows(logits[:, without], teacher[:, without]),
    )
