"""The drawn cloths of the README's picture."""

import numpy as np

from selfsup.data.demo_drawings import DRAWINGS, PALETTES, drawing, write_demo_drawings


def test_a_drawing_follows_from_its_numbers_and_the_seed() -> None:
    first = drawing(3, 1, side=16)
    assert first.shape == (16, 16, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, drawing(3, 1, side=16))
    for other in (drawing(3, 2, side=16), drawing(4, 1, side=16), drawing(3, 1, side=16, seed=1)):
        assert (first != other).mean() > 0.5


def test_cloths_to_search_among_are_none_of_training(monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from selfsup.data import demo_drawings

    monkeypatch.setattr(demo_drawings, "TRAIN_CLOTHS", 3)
    monkeypatch.setattr(demo_drawings, "TEST_CLOTHS", 2)
    train, test = (np.load(file) for file in write_demo_drawings(tmp_path, side=8, seed=0))
    assert train["images"].shape == (3 * DRAWINGS, 8, 8, 3)
    assert set(train["labels"]) == {0, 1, 2}
    assert set(test["labels"]) == {3, 4}
    np.testing.assert_array_equal(test["images"][0], drawing(3, 0, side=8))


def test_a_palette_is_shared_so_that_colours_alone_do_not_tell_a_cloth() -> None:
    mean = [drawing(cloth, 0, side=16).mean((0, 1)) for cloth in (0, len(PALETTES))]
    assert len(PALETTES) == 4
    assert np.abs(mean[0] - mean[1]).max() < 128
