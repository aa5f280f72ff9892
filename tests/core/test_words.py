"""Numbers in sentences."""

import pytest

from selfsup.core.words import counted


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
