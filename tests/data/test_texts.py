"""Words in bytes: what was put in comes out."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfsup.data.texts import BLOCK, TextsWriter, texts

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=20)


@given(WORDS)
def test_words_come_out_as_they_went_in(words: list[str]) -> None:
    stored = texts(words)
    assert list(stored) == [stored[i] for i in range(len(stored))] == stored[:] == words
    assert stored == words
    assert stored[::-2] == words[::-2]
    assert stored[-3:] == words[-3:]
    assert stored != [*words, ""]
    assert pickle.loads(pickle.dumps(stored)) == words


def test_more_words_than_a_block_come_in_order() -> None:
    words = [f"image {i}" for i in range(2 * BLOCK + 5)]
    assert list(texts(words)) == words


def test_places_count_from_either_end_and_there_are_no_others() -> None:
    stored = texts(["a", "b"])
    assert [stored[i] for i in (-2, -1, 0, 1)] == ["a", "b", "a", "b"]
    for i in (2, -3):
        with pytest.raises(IndexError):
            stored[i]


def test_names_of_files_in_other_encodings_come_back() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert texts([name])[0] == name


def test_half_a_pair_of_a_cut_text_is_a_question_mark() -> None:
    assert texts(["smile \ud83d", "b"])[:] == ["smile ?", "b"]


def test_a_column_that_begins_late_is_blank_before() -> None:
    writer = TextsWriter()
    writer.fill(2)
    writer.add("x")
    writer.fill(4)
    assert writer.texts() == ["", "", "x", ""]


@pytest.mark.parametrize("other", ["ab", 3, None])
def test_words_are_no_single_word(other: object) -> None:
    assert texts(["a", "b"]) != other
