"""Packs: what goes in comes out, whatever stopped the packing, and damage is actual."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_files import GOOD, write
from PIL import Image

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.core.errors import UserError
from selfsup.data.encode import Format, Stored, Style, encode
from selfsup.data.open import open_source
from selfsup.data.pack import PAGE, Pack
from selfsup.data.pack_writer import check_pack, write_pack
from selfsup.data.sources import ArraySource, Source
from selfsup.data.texts import Texts

RAW, JPEG = Style("raw", None, 90), Style("jpeg", None, 90)


def pictures(folder: Path, sizes: list[tuple[int, int]]) -> Source:
    """Labelled files of noise in those heights and widths."""
    draw = np.random.default_rng(0)
    for i, (height, width) in enumerate(sizes):
        (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        levels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"class{i % 2}" / f"{i}.png")
    return open_source(str(folder))


def stopped_after_one(source: Source, file: Path) -> None:
    """A packing that somebody interrupts."""

    def stop(images: int) -> None:
        if images:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pack(source, file, JPEG, progress=stop)


def test_a_raw_pack_gives_the_same_pixels_labels_and_names(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", [(10, 12), (9, 30), (20, 8)])
    assert write_pack(source, tmp_path / "x.pack", RAW) == 0
    actual = open_source(str(tmp_path / "x.pack"))
    assert source.labels is not None
    assert actual.labels is not None
    assert torch.equal(actual.labels, source.labels)
    assert actual.classes == source.classes == ["class0", "class1"]
    for i in range(3):
        assert np.array_equal(actual.pixels(i), source.pixels(i))
        assert actual.name(i) == source.name(i)
    cut = CropSpec(CenterBoxes(2, 0.8), 6, "bicubic")
    assert torch.equal(actual.crops([2, 0], cut).images[0], source.crops([2, 0], cut).images[0])


def test_raw_images_of_one_size_are_an_array_that_is_mapped(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0, 1, 2])
    write_pack(open_source(str(tmp_path / "x.npz")), tmp_path / "x.pack", RAW)
    actual = open_source(str(tmp_path / "x.pack"))
    assert isinstance(actual, ArraySource)
    assert actual.in_memory
    assert np.array_equal(actual.images, images)
    assert not actual.images.flags.writeable
    assert actual.name(4) == "image 4"


def test_images_of_five_channels_are_packed_raw_only(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 5), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    source = open_source(str(tmp_path / "x.npy"), channels=5)
    write_pack(source, tmp_path / "x.pack", RAW)
    actual = open_source(str(tmp_path / "x.pack"), channels=5)
    assert np.array_equal(actual.pixels(2), images[2])
    with pytest.raises(UserError, match="has images of 5 channels, not 3"):
        open_source(str(tmp_path / "x.pack"))
    with pytest.raises(UserError, match="JPEG has 1 or 3 channels, not 5"):
        write_pack(source, tmp_path / "y.pack", JPEG)


def test_a_jpeg_pack_is_near_the_pixels_and_smaller(tmp_path: Path) -> None:
    smooth = np.indices((64, 96)).sum(0, dtype=np.uint8)[..., None].repeat(3, -1)
    (tmp_path / "in").mkdir()
    Image.fromarray(smooth).save(tmp_path / "in" / "a.png")
    source = open_source(str(tmp_path / "in"))
    write_pack(source, tmp_path / "x.pack", JPEG)
    actual = open_source(str(tmp_path / "x.pack"))
    assert abs(actual.pixels(0).astype(int) - smooth).max() < 12
    stored = actual.stored(0)
    assert stored is not None
    assert len(stored) < smooth.size / 8


@pytest.mark.parametrize(
    ("side", "expected"), [(None, (40, 80)), (20, (20, 40)), (16, (16, 32)), (100, (40, 80))]
)
@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_the_shorter_side_is_shrunk_to_what_was_asked_and_never_enlarged(
    tmp_path: Path, side: int | None, expected: tuple[int, int], kind: Format
) -> None:
    source = pictures(tmp_path / "in", [(40, 80)])
    write_pack(source, tmp_path / "x.pack", Style(kind, side, 90))
    assert open_source(str(tmp_path / "x.pack")).pixels(0).shape[:2] == expected


def test_bad_images_are_left_out_and_named(tmp_path: Path) -> None:
    verdicts = write(tmp_path / "in")
    source = open_source(str(tmp_path / "in"))
    bad = write_pack(source, tmp_path / "x.pack", JPEG, threads=2)
    pack = Pack(tmp_path / "x.pack")
    assert bad == sum(verdict != GOOD for verdict in verdicts.values())
    left_out = {name for name, _ in pack.contents["bad"]}
    assert left_out == {n for n, verdict in verdicts.items() if verdict != GOOD}
    assert set(pack.texts("name")) == {n for n, verdict in verdicts.items() if verdict == GOOD}


def test_other_columns_of_a_manifest_stay(tmp_path: Path) -> None:
    pictures(tmp_path / "in", [(8, 8), (8, 8)])
    table = "path,label,camera\nin/class0/0.png,a,north\nin/class1/1.png,b,süd\n"
    (tmp_path / "all.csv").write_text(table)
    write_pack(open_source(str(tmp_path / "all.csv")), tmp_path / "x.pack", RAW)
    assert list(open_source(str(tmp_path / "x.pack")).columns["camera"]) == ["north", "süd"]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_stopped_packing_goes_on_and_ends_in_the_same_file(
    tmp_path: Path, stop: int, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "in", [(8, 8), (9, 9), (7, 12), (8, 8), (5, 5), (6, 6)])
    write_pack(source, tmp_path / "whole.pack", JPEG)
    done = 0

    def progress(images: int) -> None:
        nonlocal done
        done += images
        if done == stop + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pack(source, tmp_path / "x.pack", JPEG, progress=progress)
    assert not (tmp_path / "x.pack").exists()
    if half:  # the machine went down in the middle of a write
        with (tmp_path / "x.pack.partial").open("ab") as images:
            images.write(b"half an image")
        with (tmp_path / "x.pack.journal").open("a") as journal:
            journal.write('{"i": 5, "sta')
    encoded: list[bool] = []

    def counted(image: np.ndarray, style: Style) -> Stored:
        encoded.append(True)
        return encode(image, style)

    monkeypatch.setattr("selfsup.data.pack_writer.encode", counted)
    write_pack(source, tmp_path / "x.pack", JPEG)
    assert len(encoded) == 6 - (stop + 1)
    assert (tmp_path / "x.pack").read_bytes() == (tmp_path / "whole.pack").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"in", "whole.pack", "x.pack"}


def test_another_try_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", [(8, 8), (9, 9)])
    stopped_after_one(source, tmp_path / "x.pack")
    with pytest.raises(UserError, match="is of another attempt"):
        write_pack(source, tmp_path / "x.pack", RAW)


def test_images_and_index_begin_at_pages(tmp_path: Path) -> None:
    write_pack(pictures(tmp_path / "in", [(8, 8), (9, 9)]), tmp_path / "x.pack", RAW)
    pack = Pack(tmp_path / "x.pack")
    starts = [start for _, _, start in pack.contents["arrays"].values()]
    assert starts
    assert all(start % PAGE == 0 for start in starts)
    assert pack.array("starts").tolist() == [PAGE, PAGE + 8 * 8 * 3]


def test_a_changed_byte_is_found_and_named(tmp_path: Path) -> None:
    file = tmp_path / "x.pack"
    write_pack(pictures(tmp_path / "in", [(8, 8), (9, 9)]), file, RAW)
    assert check_pack(file) == []
    data = bytearray(file.read_bytes())
    data[PAGE + 8 * 8 * 3 + 5] ^= 1
    file.write_bytes(data)
    assert check_pack(file) == ["class1/1.png"]


@pytest.mark.parametrize("damage", ["cut", "longer", "other", "empty", "header"])
def test_what_is_no_whole_pack_is_told(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "x.pack"
    write_pack(pictures(tmp_path / "in", [(8, 8)]), file, RAW)
    data = file.read_bytes()
    broken = {
        "cut": data[:-9],
        "longer": data + b"x",
        "other": b"PK" + data[2:],
        "empty": b"",
        "header": data[:20] + b"\0" * 40 + data[60:],
    }
    file.write_bytes(broken[damage])
    with pytest.raises(UserError, match=r"x\.pack"):
        open_source(str(file))


def test_a_folder_of_packs_is_one_source(tmp_path: Path) -> None:
    for name, side in (("b", 9), ("a", 7)):
        source = pictures(tmp_path / name, [(side, side)])
        write_pack(source, tmp_path / "packs" / f"{name}.pack", RAW)
    actual = open_source(str(tmp_path / "packs"))
    assert [actual.pixels(i).shape[0] for i in range(2)] == [7, 9]


def test_a_pack_of_other_images_is_not_written_over(tmp_path: Path) -> None:
    sources = [pictures(tmp_path / name, [(9, side)]) for name, side in (("a", 8), ("b", 7))]
    file = tmp_path / "x.pack"
    write_pack(sources[0], file, RAW)
    before = file.read_bytes()
    for source, style in ((sources[1], RAW), (sources[0], JPEG)):
        with pytest.raises(UserError, match="is there already, of other images or in another"):
            write_pack(source, file, style)
    assert file.read_bytes() == before
    write_pack(sources[0], file, RAW)  # the same command again
    assert file.read_bytes() == before
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="is there already"):
        write_pack(sources[0], file, RAW)


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    why = r"none of the 1 images can be read; the first, a\.png: UnidentifiedImageError"
    with pytest.raises(UserError, match=why):
        write_pack(open_source(str(tmp_path)), tmp_path / "x.pack", RAW)


def test_words_are_counted_from_either_end() -> None:
    words = Texts(np.frombuffer("abc été".encode(), np.uint8), np.array([1, 3, 3, 9]))
    assert list(words) == ["a", "bc", "", " été"]
    assert words[-1] == " été"
    assert words[1:3] == ["bc", ""]
    with pytest.raises(IndexError):
        words[4]


def test_the_journal_is_a_line_for_each_image(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", [(8, 8), (9, 9)])
    stopped_after_one(source, tmp_path / "x.pack")
    first, second = map(json.loads, (tmp_path / "x.pack.journal").read_text().splitlines())
    assert first["images"] == 2
    assert second["i"] == 0
    assert len(second["sha256"]) == 64


@pytest.mark.parametrize("lost", [1, 40])
def test_what_the_journal_promised_and_the_disk_lost_is_packed_again(
    tmp_path: Path, lost: int
) -> None:
    source = pictures(tmp_path / "in", [(8, 8), (9, 9)])
    write_pack(source, tmp_path / "whole.pack", JPEG)
    stopped_after_one(source, tmp_path / "x.pack")
    partial = tmp_path / "x.pack.partial"
    partial.write_bytes(partial.read_bytes()[:-lost])
    write_pack(source, tmp_path / "x.pack", JPEG)
    assert (tmp_path / "x.pack").read_bytes() == (tmp_path / "whole.pack").read_bytes()


def test_what_was_written_beyond_the_journal_does_not_stay(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", [(8, 8), (9, 9)])
    write_pack(source, tmp_path / "whole.pack", JPEG)
    stopped_after_one(source, tmp_path / "x.pack")
    with (tmp_path / "x.pack.partial").open("ab") as images:
        images.write(b"x" * 100_000)
    write_pack(source, tmp_path / "x.pack", JPEG)
    assert (tmp_path / "x.pack").read_bytes() == (tmp_path / "whole.pack").read_bytes()


def test_other_images_of_the_same_names_are_not_gone_on_with(tmp_path: Path) -> None:
    stopped_after_one(pictures(tmp_path / "in", [(8, 8), (9, 9)]), tmp_path / "x.pack")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "in" / "class0" / "0.png")
    with pytest.raises(UserError, match="is of another attempt"):
        write_pack(open_source(str(tmp_path / "in")), tmp_path / "x.pack", JPEG)


def test_a_try_that_wrote_nothing_down_is_begun_anew(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", [(8, 8), (9, 9)])
    for end in (".partial", ".journal"):
        (tmp_path / f"x.pack{end}").touch()
    write_pack(source, tmp_path / "x.pack", JPEG)
    assert len(Pack(tmp_path / "x.pack")) == 2


def test_a_changed_index_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.pack"
    write_pack(pictures(tmp_path / "in", [(8, 8), (9, 9)]), file, RAW)
    start = Pack(file).contents["arrays"]["labels"][2]
    data = bytearray(file.read_bytes())
    data[start] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"the index of .*x\.pack has changed"):
        check_pack(file)


def test_a_column_of_a_pack_may_be_its_labels(tmp_path: Path) -> None:
    pictures(tmp_path / "in", [(8, 8), (8, 8)])
    table = "path,label,camera\nin/class0/0.png,a,north\nin/class1/1.png,b,south\n"
    (tmp_path / "all.csv").write_text(table)
    write_pack(open_source(str(tmp_path / "all.csv")), tmp_path / "x.pack", RAW)
    assert open_source(str(tmp_path / "x.pack"), labels="camera").classes == ["north", "south"]
    with pytest.raises(UserError, match="no column 'person'; it has camera"):
        open_source(str(tmp_path / "x.pack"), labels="person")


def test_an_image_that_no_jpeg_can_hold_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (70_000, 1)).save(tmp_path / "in" / "strip.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "square.png")
    assert write_pack(open_source(str(tmp_path / "in")), tmp_path / "x.pack", JPEG) == 1
