"""Near duplicates: copies are found, pictures of one kind are not, and groups are no chains."""

import io
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

from selfsup.data.alignment import Limits, register, same_picture
from selfsup.data.candidates import candidate_pairs
from selfsup.data.duplicates import find_duplicates, maskable, too_large
from selfsup.data.near_duplicates import copies_between, near_duplicate_groups, star_groups
from selfsup.data.thumbnails import BYTES, stack, thumbnail

pytestmark = pytest.mark.slow

Levels = np.ndarray


def digits(n: int = 1200) -> list[Levels]:
    """Handwritten ones in the middle of 28 x 28 black pixels."""
    small = [Image.fromarray((x / 16 * 255).astype(np.uint8)) for x in load_digits().images[:n]]
    return [np.pad(np.asarray(x.resize((20, 20))), 4)[..., None] for x in small]


def photographs() -> list[Levels]:
    """Pieces of 32 pixels of two photographs."""
    pieces = [
        np.asarray(Image.fromarray(image[y : y + 64, x : x + 64]).resize((32, 32)))
        for image in load_sample_images().images
        for y in range(0, image.shape[0] - 63, 64)
        for x in range(0, image.shape[1] - 63, 64)
    ]
    return [piece for piece in pieces if piece.mean(2).std() > 15]


def drawings(n: int = 100) -> list[Levels]:
    """Three coloured shapes on white, 48 pixels."""
    draw = np.random.default_rng(0)
    images = []
    for _ in range(n):
        sheet = Image.new("RGB", (48, 48), "white")
        pencil = ImageDraw.Draw(sheet)
        for shape in (pencil.ellipse, pencil.rectangle, pencil.ellipse):
            x, y, w, h = draw.integers((4, 4, 6, 6), (30, 30, 20, 20)).tolist()
            shape((x, y, x + w, y + h), fill=tuple(draw.integers(0, 230, 3).tolist()))
        images.append(np.asarray(sheet))
    return images


def jpeg(quality: int) -> Callable[[Levels], Levels]:
    def change(image: Levels) -> Levels:
        out = io.BytesIO()
        as_picture(image).save(out, "JPEG", quality=quality)
        return as_levels(Image.open(out))

    return change


def as_picture(image: Levels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def as_levels(picture: Image.Image) -> Levels:
    levels = np.asarray(picture)
    return levels[..., None] if levels.ndim == 2 else levels


def moved(image: Levels, x: int, y: int) -> Levels:
    """Shift by pixels; the border is repeated."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = image.shape[:2]
    return padded[1 - y : 1 - y + h, 1 - x : 1 - x + w]


def resized(image: Levels, factor: float) -> Levels:
    picture = as_picture(image)
    return as_levels(picture.resize([round(side * factor) for side in picture.size]))


def brighter(image: Levels, factor: float) -> Levels:
    return (image * factor).round().clip(0, 255).astype(np.uint8)


SETS = {"digits": digits, "photographs": photographs, "drawings": drawings}
CHANGES: dict[str, Callable[[Levels], Levels]] = {
    "JPEG 75": jpeg(75),
    "JPEG 50": jpeg(50),
    "a pixel right": lambda x: moved(x, 1, 0),
    "a pixel up": lambda x: moved(x, 0, -1),
    "a pixel both ways": lambda x: moved(x, -1, 1),
    "3 % brighter": lambda x: brighter(x, 1.03),
    "10 % darker": lambda x: brighter(x, 0.9),
    "8 levels": lambda x: (x.astype(int) + 8).clip(0, 255).astype(np.uint8),
    "3/4 size": lambda x: resized(x, 0.75),
    "double size": lambda x: resized(x, 2),
    "blurred": lambda x: as_levels(as_picture(x).filter(ImageFilter.GaussianBlur(0.7))),
    "cropped": lambda x: x[1:-1, 1:-1],
}


def groups_of(images: list[Levels]) -> list[list[int]]:
    return near_duplicate_groups([thumbnail(image) for image in images], Limits())


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("change", CHANGES)
def test_nineteen_of_twenty_planted_copies_are_found(kind: str, change: str) -> None:
    images = SETS[kind]()
    chosen = range(0, 60, 3)
    copies = [CHANGES[change](images[i]) for i in chosen]
    thumbnails = [thumbnail(image) for image in images + copies]
    side = [0] * len(images) + [1] * len(copies)
    pairs = copies_between(thumbnails, side, Limits()).tolist()
    found = sum([i, len(images) + k] in pairs for k, i in enumerate(chosen))
    assert found >= 19


def test_different_digits_on_black_are_no_copies() -> None:
    labels = load_digits().target
    groups = groups_of(digits())
    assert sum(map(len, groups)) < 12  # of 1,200; a few straight ones are the same to the eye
    assert all(len(set(labels[group])) == 1 for group in groups)


def test_drawings_and_photographs_of_one_kind_are_no_copies() -> None:
    assert groups_of(drawings()) == []
    assert groups_of(photographs()) == []


def test_a_shape_in_another_colour_or_tone_is_no_copy() -> None:
    hearts = []
    for fill in ("red", "blue", "green", "orange", "purple", "black", "grey"):
        sheet = Image.new("RGB", (40, 40), "white")
        ImageDraw.Draw(sheet).ellipse((8, 8, 30, 26), fill=fill)
        hearts.append(np.asarray(sheet))
    assert groups_of(hearts) == []


def test_clothes_of_one_cut_in_another_pattern_are_no_copies() -> None:
    shape = np.zeros((28, 28))
    shape[3:25, 8:20] = 1
    shape[3:10, 3:25] = 1
    across = np.arange(28)
    tones = [
        np.full(28, 180),
        150 + 45 * (across % 4 < 2),
        150 + 45 * (across % 6 < 3),
        np.full(28, 120),
        120 + 40 * (across > 13),
    ]
    assert groups_of([(shape * tone)[..., None].astype(np.uint8) for tone in tones]) == []


def test_a_wide_and_a_square_picture_are_no_copies() -> None:
    image = photographs()[0]
    wide = as_levels(as_picture(image).resize((64, 32)))
    assert groups_of([image, wide]) == []


def test_images_without_contrast_are_nobodys_copies() -> None:
    even = [np.full((28, 28, 3), level, np.uint8) for level in (0, 1, 128, 254, 255)]
    noise = np.random.default_rng(0).normal(128, 1, (4, 28, 28, 3)).round().astype(np.uint8)
    slope = np.linspace(0, 6, 28).round().astype(np.uint8)  # two skies, hardly darker below
    skies = [np.tile(slope[:, None, None] + level, (1, 28, 3)) for level in (200, 201)]
    assert groups_of([*even, *noise, *skies]) == []


@settings(max_examples=20, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_registration_finds_the_shift(x: float, y: float) -> None:
    axis = torch.arange(32.0)

    def blob(dx: float, dy: float) -> torch.Tensor:
        across, down = (axis - 15 + dx) ** 2 / 40, (axis - 17 + dy) ** 2 / 60
        return 200 * torch.exp(-across - down[:, None])[None, None]

    motion = register(blob(x, y), blob(0, 0))[0]
    assert motion.tolist() == pytest.approx([-x, -y, 0], abs=0.15)


def test_candidates_hold_every_copy_of_thousands() -> None:
    draw = np.random.default_rng(0)
    waves = np.cumsum(np.cumsum(draw.normal(size=(3000, 32, 32)), 1), 2)
    low, high = waves.min((1, 2), keepdims=True), waves.max((1, 2), keepdims=True)
    images = list(((waves - low) / (high - low) * 255).astype(np.uint8)[..., None])
    copies = [moved(image, 1, 0) for image in images[::100]]
    pairs = candidate_pairs(stack([thumbnail(image) for image in images + copies])).tolist()
    assert all([100 * k, 3000 + k] in pairs for k in range(len(copies)))
    assert len(pairs) < 3000 * 100  # of 4.5 million


def test_candidates_between_sides_are_of_different_sides() -> None:
    side = torch.arange(300) % 3
    pairs = candidate_pairs(stack([thumbnail(image) for image in digits(300)]), side)
    assert len(pairs) > 0
    assert bool((side[pairs[:, 0]] != side[pairs[:, 1]]).all())
    assert bool((pairs[:, 0] < pairs[:, 1]).all())
    assert len(pairs.unique(dim=0)) == len(pairs)


def test_a_group_lies_around_one_image_and_is_no_chain() -> None:
    assert star_groups([(0, 1), (1, 2), (2, 3), (3, 4)]) == {1: [1, 0, 2], 3: [3, 4]}
    assert star_groups([(0, 1), (1, 2), (2, 3)]) == {1: [1, 0, 2]}
    assert star_groups([]) == {}


def test_a_slow_change_from_one_picture_to_another_makes_no_group_of_both() -> None:
    first, last = (photographs()[i].astype(float) for i in (0, 5))
    steps = [(first + (last - first) * t).astype(np.uint8) for t in np.linspace(0, 1, 40)]
    tables = stack([thumbnail(step) for step in steps])
    groups = groups_of(steps)
    assert max(map(len, groups)) < 20
    for group in groups:  # some image of it is a copy of all others
        pairs = {i: torch.tensor([[min(i, j), max(i, j)] for j in group if j != i]) for i in group}
        assert any(bool(same_picture(tables, rows, Limits()).all()) for rows in pairs.values())


def test_hundreds_of_versions_of_one_picture_are_one_group() -> None:
    image = photographs()[0].astype(float)
    draw = np.random.default_rng(0)
    versions = [
        (image + draw.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8) for _ in range(600)
    ]
    groups = groups_of([*versions, *photographs()[1:30]])
    assert len(groups[0]) > 590


def test_equal_pictures_of_any_number_are_found_at_once() -> None:
    same = thumbnail(photographs()[0])
    assert near_duplicate_groups([same] * 20_000, Limits()) == [list(range(20_000))]


def test_an_unreadable_image_is_in_no_group() -> None:
    same = thumbnail(photographs()[0])
    assert near_duplicate_groups([b"", same, b"", same], Limits()) == [[1, 3]]
    assert near_duplicate_groups([], Limits()) == []
    assert near_duplicate_groups([b""], Limits()) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 1), (9, 2, 5), (300, 2, 3), (8, 8, 3)])
def test_images_of_any_shape_have_a_thumbnail(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert len(thumbnail(image)) == BYTES
    assert groups_of([image]) == []


def find(
    digests: list[str], images: list[Levels], split: list[str], labels: list[int]
) -> list[list[list[int]]]:
    thumbnails = [thumbnail(image) for image in images]
    found = find_duplicates(digests, thumbnails, split=split, labels=labels, limits=Limits())
    return [found.exact, found.near, found.leaks, found.two_classes]


def test_a_copy_under_another_label_or_in_another_split_is_told() -> None:
    a, b, c = photographs()[:3]
    images = [a, b, jpeg(60)(a), c, b]
    exact, near, leaks, two_classes = find(list("abxcb"), images, ["x", "x", "y", "y", "x"], [])
    assert exact == [[1, 4]]
    assert near == [[0, 2], [1, 4]]
    assert leaks == [[0, 2]]
    assert two_classes == []
    assert find(list("abxcb"), images, [], [0, 1, 0, 2, 3])[3] == [[1, 4]]
    assert find(list("abxcb"), images, [], [0, 1, 2, 2, -1])[3] == [[0, 2]]


def test_a_copy_of_another_split_is_told_where_its_partner_is_in_a_group_of_its_own() -> None:
    """A row of steps, each a copy of the next only: groups of two leave one pair between them."""
    first, last = (photographs()[i].astype(float) for i in (0, 5))
    steps = [(first + (last - first) * t).astype(np.uint8) for t in np.linspace(0, 1, 30)]
    split = ["ab"[i % 2] for i in range(30)]
    leaks = find([str(i) for i in range(30)], steps, split, [])[2]
    thumbnails = [thumbnail(step) for step in steps]
    pairs = copies_between(thumbnails, [i % 2 for i in range(30)], Limits())
    assert {i for group in leaks for i in group} == set(pairs.flatten().tolist())


def test_a_leak_is_found_behind_many_copies_in_its_own_split() -> None:
    image = photographs()[0]
    draw = np.random.default_rng(0)
    noisy = [
        (image + draw.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8) for _ in range(60)
    ]
    split = ["train"] * 30 + ["test"] * 30
    leaks = find([str(i) for i in range(60)], noisy, split, [])[2]
    assert {i for group in leaks for i in group} == set(range(60))


def test_groups_of_more_than_a_hundredth_are_masked_only_where_files_are_equal() -> None:
    near = [[0, 1], list(range(10, 40))]
    assert too_large(near, 1000) == [list(range(10, 40))]
    assert too_large(near, 3000) == []
    assert maskable(near, [[0, 1], [12, 13]], 1000) == [[0, 1], [12, 13]]
    assert maskable(near, [[0, 1], [12, 13]], 3000) == near
    assert maskable([[0, 1]], [], 100) == [[0, 1]]  # two of a hundred are no doubtful group


def test_all_pairs_of_a_small_set_are_candidates_if_they_are_near() -> None:
    image = photographs()[3]
    versions = [brighter(image, 1 + k / 100) for k in range(4)]
    pairs = candidate_pairs(stack([thumbnail(version) for version in versions]))
    assert pairs.tolist() == [list(pair) for pair in combinations(range(4), 2)]


def test_a_large_image_and_its_smaller_forms_have_nearly_one_thumbnail() -> None:
    whole = load_sample_images().images[0]
    small = as_levels(as_picture(whole).resize((128, 96), Image.Resampling.BOX))
    tables = stack([thumbnail(whole), thumbnail(small)])
    for table in tables[:2]:
        assert float((table[0].float() - table[1].float()).abs().mean()) < 1.5
