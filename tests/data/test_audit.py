"""The audit: what is doubled, near and leaked, and what training makes of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from selfsup.config import PretrainConfig
from selfsup.core.errors import UserError
from selfsup.data.audit import (
    Audit,
    audit,
    not_masked,
    read_audit,
    training_units,
    write_audit,
)
from selfsup.data.open import open_source
from selfsup.data.sources import ArraySource, ImageSource, Source
from selfsup.report.audit import summary
from selfsup.training.pretrain import pretraining_sampler


def photographs() -> list[Image.Image]:
    """Two real ones, and two other parts of them."""
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    return [*whole, whole[0].crop((0, 0, 200, 200)), whole[1].crop((300, 100, 500, 300))]


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("messy")
    for i, image in enumerate(photographs()):
        image.save(root / f"{i}.jpg", quality=95)
    shutil.copy(root / "0.jpg", root / "0 again.jpg")
    image = photographs()[0]
    image.resize((320, 213)).save(root / "0 small.png")
    ImageEnhance.Brightness(image).enhance(1.1).save(root / "0 light.jpg", quality=60)
    (root / "bad.jpg").write_bytes(b"")
    rows = ["0.jpg,a", "1.jpg,a", "2.jpg,b", "3.jpg,b", "0 again.jpg,a", "bad.jpg,b"]
    rows += ["0 small.png,b", "0 light.jpg,a"]
    (root / "all.csv").write_text("path,split\n" + "\n".join(rows) + "\n")
    return open_source(str(root / "all.csv"))


def named(actual: Audit, what: str) -> list[list[str]]:
    """Groups by the names of their images."""
    return [[actual.names[i] for i in group] for group in getattr(actual, what)]


def test_equal_files_and_files_that_look_alike_are_grouped(messy: Source) -> None:
    actual = audit(messy, "messy", threads=2)
    assert named(actual, "exact") == [["0.jpg", "0 again.jpg"]]
    assert named(actual, "near") == [["0.jpg", "0 again.jpg", "0 small.png", "0 light.jpg"]]
    assert actual.leaks == actual.near  # "0 small.png" is of the other split
    assert actual.splits == {"a": 4, "b": 3}
    assert actual.formats == {"JPEG": 6, "PNG": 1}
    assert [actual.names[i] for i in actual.bad] == ["bad.jpg"]


def test_an_audit_is_the_same_on_any_number_of_threads_and_reads_back_equal(
    messy: Source, tmp_path: Path
) -> None:
    actual = audit(messy, "messy", threads=3)
    assert actual == audit(messy, "messy", threads=1)
    write_audit(actual, tmp_path / "deep" / "audit.json")
    assert read_audit(tmp_path / "deep" / "audit.json") == actual


def test_moments_count_every_image_alike() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 1] = 255, 51
    actual = audit(ArraySource(images, torch.tensor([0, 0]), ["x"]), "arrays")
    assert actual.mean == [0.5, 0.1, 0.0]
    assert actual.std == [0.5, 0.1, 0.0]
    assert actual.classes == {"x": 2}
    assert actual.formats == {"array": 2}


def test_even_images_are_nobodys_duplicates() -> None:
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 90, 255)])
    actual = audit(ArraySource(images, None, []), "even")
    assert actual.near == []
    images = np.concatenate([images, images[1:2]])
    actual = audit(ArraySource(images, None, []), "even")
    assert actual.near == [[1, 3]]  # but equal ones are


def test_training_leaves_out_the_bad_and_takes_duplicates_as_one(messy: Source) -> None:
    actual = audit(messy, "messy")
    assert training_units(messy, actual, merge_duplicates=False) == [
        [0],
        [1],
        [2],
        [3],
        [4],
        [6],
        [7],
    ]
    assert training_units(messy, actual, merge_duplicates=True) == [[0, 4, 6, 7], [1], [2], [3]]


def test_an_audit_of_other_images_is_refused(messy: Source) -> None:
    actual = audit(messy, "messy")
    other = ArraySource(np.zeros((8, 4, 4, 3), np.uint8), None, [])
    with pytest.raises(UserError, match="messy is of other images: 'image 0' is not in it"):
        training_units(other, actual, merge_duplicates=False)


def test_an_audit_of_arrays_is_not_taken_for_others_of_the_same_names() -> None:
    draw = np.random.default_rng(0)
    one, other = (draw.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8) for n in (9, 7))
    actual = audit(ArraySource(one, None, []), "one")
    assert training_units(ArraySource(one, None, []), actual, merge_duplicates=True) == [
        [i] for i in range(9)
    ]
    with pytest.raises(UserError, match="'image 0' is not what it was when one was audited"):
        training_units(ArraySource(other, None, []), actual, merge_duplicates=False)


def test_names_that_come_twice_are_told_apart_by_their_place(tmp_path: Path) -> None:
    """Two folders with files of the same names: the bad one and the duplicates stay right."""
    draw = np.random.default_rng(0)
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for i in range(4):
            levels = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "a" / "0.png").write_bytes(b"broken")
    shutil.copy(tmp_path / "a" / "3.png", tmp_path / "b" / "2.png")
    both = open_source(f"{tmp_path}/a + {tmp_path}/b")
    actual = audit(both, "both")
    assert training_units(both, actual, merge_duplicates=True) == [[1], [2], [3, 6], [4], [5], [7]]
    with pytest.raises(UserError, match="names in it come twice"):
        training_units(open_source(str(tmp_path / "b")), actual, merge_duplicates=True)


def test_an_audit_of_all_serves_a_part(messy: Source) -> None:
    actual = audit(messy, "messy")
    wanted = ["1.jpg", "bad.jpg", "0 light.jpg", "0.jpg"]
    places = [actual.names.index(name) for name in wanted]
    part = ImageSource(lambda i: messy.stored(places[i]) or b"", wanted, None, [])
    assert training_units(part, actual, merge_duplicates=False) == [[0], [2], [3]]
    assert training_units(part, actual, merge_duplicates=True) == [[0], [2, 3]]


def settings_of(audit_file: Path, **more: object) -> PretrainConfig:
    return PretrainConfig(data="", out="", batch=4, audit=str(audit_file), **more)  # type: ignore[arg-type]


def test_duplicates_never_meet_in_a_batch_and_all_are_seen_in_time(
    messy: Source, tmp_path: Path
) -> None:
    file = tmp_path / "audit.json"
    write_audit(audit(messy, "messy"), file)
    sampler = pretraining_sampler(messy, settings_of(file, mask_duplicates=True))
    assert sampler.steps_per_epoch == 1
    seen = [set(sampler(step).tolist()) for step in range(60)]
    assert all(len(positions & {0, 4, 6, 7}) == 1 for positions in seen)
    assert set.union(*seen) == {0, 1, 2, 3, 4, 6, 7}
    plain = pretraining_sampler(messy, settings_of(file))
    assert set.union(*(set(plain(step).tolist()) for step in range(30))) == {0, 1, 2, 3, 4, 6, 7}


def many_alike(n: int = 400) -> tuple[ArraySource, np.ndarray]:
    """Pieces of photographs and, from position 300 on, a hundred noisy forms of the last of them.

    The last two are equal.
    """
    whole = load_sample_images().images[0]
    draw = np.random.default_rng(0)
    boxes = draw.integers(0, 380, (300, 2))
    images = [whole[y : y + 24, x : x + 24] for y, x in boxes]
    base = whole[200:320:5, 200:320:5]
    noise = draw.normal(0, 2, (n - 300, *base.shape))
    images += list((base + noise).clip(0, 255).astype(np.uint8))
    images[-1] = images[-2]
    return ArraySource(np.stack(images), None, []), np.arange(300, n)


def test_a_group_of_more_than_a_hundredth_is_told_and_only_its_equal_files_are_masked() -> None:
    source, alike = many_alike()
    actual = audit(source, "alike")
    assert [group for group in actual.near if set(alike) <= set(group)]
    units = training_units(source, actual, merge_duplicates=True)
    assert [i for i in alike[:-2] if [i] not in units] == []
    assert [398, 399] in units
    message = not_masked(actual)
    assert "1 group of near duplicates has more than a hundredth of all images" in message
    assert "--mask-duplicates takes only equal files of them as one" in message
    assert f"warning: {message}" not in str(summary(actual))
    assert dict(summary(actual))["not masked"].startswith("1 group:")


def test_a_small_audit_has_no_group_that_is_too_large(messy: Source) -> None:
    assert not_masked(audit(messy, "messy")) == ""


def test_an_audit_of_an_older_selfsup_is_to_be_made_again(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"data": "x", "near": [[0, 1]]}')
    with pytest.raises(UserError, match="is of an older selfsup; run selfsup audit again"):
        read_audit(tmp_path / "old.json")


def test_one_picture_under_two_labels_is_told() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 9, 9, 3), dtype=np.uint8)
    images[3] = images[0]
    actual = audit(ArraySource(images, torch.tensor([0, 0, 1, 1]), ["cat", "dog"]), "x")
    assert actual.two_classes == [[0, 3]]
    assert dict(summary(actual))["one picture, two classes"] == "1 group"
    once = audit(ArraySource(images, torch.tensor([0, 0, 1, 0]), ["cat", "dog"]), "x")
    assert once.two_classes == []
    assert "one picture, two classes" not in dict(summary(once))


@pytest.mark.parametrize("level", [0, 137, 255])
def test_the_advised_deviation_is_never_zero(level: int) -> None:
    images = np.full((3, 1, 1, 3), level, np.uint8)
    images[:, :, :, 2] = np.array([0, 60, 200])[:, None, None]
    lines = dict(summary(audit(ArraySource(images, None, []), "x")))
    advised = [float(word) for word in lines["--views.std"].split()]
    assert advised[:2] == [1, 1]
    assert 0 < advised[2] < 1


def test_masking_needs_an_audit(messy: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--mask-duplicates needs --audit FILE"):
        pretraining_sampler(messy, PretrainConfig(data="", out="", mask_duplicates=True))
    with pytest.raises(UserError, match=r"does not exist; selfsup audit writes it"):
        pretraining_sampler(messy, settings_of(tmp_path / "no.json"))
    (tmp_path / "x.json").write_text('{"data": 1}')
    with pytest.raises(UserError, match="is not an audit"):
        pretraining_sampler(messy, settings_of(tmp_path / "x.json"))
