"""Numbers in sentences."""

import pytest

from selfsup.core.words import cosine, counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ["image"], "0 images"),
        (1, ["image"], "1 image"),
        (2, ["other file"], "2 other files"),
        (1, ["row is", "rows are"], "1 row is"),
        (12_000, ["row is", "rows are"], "12,000 rows are"),
    ],
)
def test_one_of_a_thing_is_told_in_the_singular(count: int, words: list[str], said: str) -> None:
    assert counted(count, *words) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((0.98765, "0.988"), (-0.5, "-0.500"), (1.0, "1.000"), (1.0000001, "1.000")),
        *((0.9994, "0.999"), (0.9996, "0.9996"), (0.99996, "0.99996"), (0.99999999, "1.000000")),
    ],
)
def test_a_cosine_near_1_has_digits_that_tell_it_from_1(value: float, said: str) -> None:
    assert cosine(value) == said
