"""Tar shards: dots, links, doubles, captions and hidden members, each image with its own label."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from selfsup.core.errors import UserError
from selfsup.data.open import open_source
from selfsup.data.sources import Source

Member = tuple[str, int | str]
"""An image of a level, or a text."""


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (6, 6), (level,) * 3).save(out, "PNG")
    return out.getvalue()


def shard(file: Path, *members: Member) -> Source:
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            if isinstance(content, str) and content.startswith(("-> ", "=> ")):
                info = tarfile.TarInfo(name)
                info.type = tarfile.SYMTYPE if content[0] == "-" else tarfile.LNKTYPE
                info.linkname = content[3:]
                tar.addfile(info)
                continue
            data = png(content) if isinstance(content, int) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return open_source(str(file))


def pairs(source: Source) -> list[tuple[str, int, str | None]]:
    """Name, level and class of each image."""
    labels = [-1] * len(source) if source.labels is None else source.labels.tolist()
    named = [*source.classes, None]
    return [
        (source.name(i), int(source.pixels(i)[0, 0, 0]), named[labels[i]])
        for i in range(len(source))
    ]


def test_names_with_dots_are_images_of_their_own(tmp_path: Path) -> None:
    members: list[Member] = []
    for i, kind in enumerate(["cat", "cat", "dog", "dog"]):
        members += [(f"{kind}.{i}.jpg", 10 * i), (f"{kind}.{i}.cls", kind)]
    assert pairs(shard(tmp_path / "x.tar", *members)) == [
        ("cat.0.jpg", 0, "cat"),
        ("cat.1.jpg", 10, "cat"),
        ("dog.2.jpg", 20, "dog"),
        ("dog.3.jpg", 30, "dog"),
    ]


@pytest.mark.parametrize(
    "names", [("2024.01.05", "2024.01.06"), ("v1.2.a", "v1.3.a"), ("a.b", "a.c")]
)
def test_dates_and_versions_in_names_do_not_join_images(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    source = shard(
        tmp_path / "x.tar",
        *((f"in/{name}.png", i) for i, name in enumerate(names)),
        *((f"in/{name}.json", json.dumps({"label": name})) for name in names),
    )
    assert pairs(source) == [(f"in/{name}.png", i, name) for i, name in enumerate(names)]


def test_one_name_with_dots_finds_its_label(tmp_path: Path) -> None:
    assert pairs(shard(tmp_path / "x.tar", ("a.1.png", 3), ("a.1.cls", "x"))) == [
        ("a.1.png", 3, "x")
    ]


def test_masks_and_further_views_of_a_sample_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shard(
        tmp_path / "x.tar",
        *(("1.mask.png", 200), ("1.png", 5), ("1.cls", "a")),
        *(("2.left.png", 7), ("2.right.png", 8), ("2.cls", "b"), ("2.depth.npy", "x")),
        *(("3.heic", "x"), ("3.cls", "b")),
    )
    assert pairs(source) == [("1.png", 5, "a"), ("2.left.png", 7, "b")]
    printed = capsys.readouterr().err
    assert "passed over 2 further images of samples" in printed
    assert "1 sample has no image that is read" in printed
    assert "passed over 2 other files (.npy 1, .heic 1; convert images" in printed


@pytest.mark.parametrize("prefix", ["./", "/", "././", "a/./", "a/../"])
def test_prefixes_of_paths_do_not_part_an_image_from_its_label(tmp_path: Path, prefix: str) -> None:
    name = "a/1" if prefix == "a/./" else "1"
    source = shard(tmp_path / "x.tar", (f"{prefix}1.png", 5), (f"{name}.cls", "x"))
    assert pairs(source) == [(f"{name}.png", 5, "x")]


@pytest.mark.parametrize(
    "members",
    [
        [("1.png", 5), ("1.cls", "x"), ("2.png", "=> 1.png"), ("2.cls", "y")],
        [("1.png", 5), ("1.cls", "x"), ("2.png", "-> 1.png"), ("2.cls", "y")],
        [("2.png", "-> ./1.png"), ("2.cls", "y"), ("1.png", 5), ("1.cls", "x")],
        [
            ("1.png", 5),
            ("1.cls", "x"),
            ("2.png", "-> 3.bin"),
            ("3.bin", "=> 1.png"),
            ("2.cls", "y"),
        ],
        [("1.png", 5), ("1.cls", "x"), ("2.png", "=> 1.png"), ("2.cls", "-> z"), ("z", "y")],
        [("1.png", 5), ("1.cls", "x"), ("2.png", "=> ./1.png"), ("2.cls", "y")],
    ],
)
def test_links_are_the_images_that_they_point_to(tmp_path: Path, members: list[Member]) -> None:
    assert sorted(pairs(shard(tmp_path / "x.tar", *members))) == [
        ("1.png", 5, "x"),
        ("2.png", 5, "y"),
    ]


@pytest.mark.parametrize("target", ["-> nowhere.png", "=> nowhere.png", "-> 2.png", "-> ../1.png"])
def test_a_link_to_nowhere_is_a_bad_image(tmp_path: Path, target: str) -> None:
    from selfsup.data.audit import audit

    source = shard(tmp_path / "x.tar", ("1.png", 5), ("2.png", target))
    assert audit(source, "x").bad == {1: "a link to a file that is not in the shard"}


def test_a_name_that_comes_twice_keeps_each_image_with_its_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined: list[Member] = [("0.png", 1), ("0.cls", "a"), ("1.png", 2), ("1.cls", "b")]
    again: list[Member] = [("0.png", 3), ("0.cls", "c"), ("1.cls", "d"), ("1.png", 4)]
    source = shard(tmp_path / "x.tar", *joined, *again)
    assert sorted(pairs(source)) == [
        ("0.png", 1, "a"),
        ("0.png (2)", 3, "c"),
        ("1.png", 2, "b"),
        ("1.png (2)", 4, "d"),
    ]
    assert "members have the name of an earlier one" in capsys.readouterr().err


def test_a_label_that_comes_again_replaces_the_earlier_as_when_tar_unpacks(tmp_path: Path) -> None:
    source = shard(tmp_path / "x.tar", ("0.png", 1), ("0.cls", "a"), ("0.cls", "b"))
    assert pairs(source) == [("0.png", 1, "b")]


@pytest.mark.parametrize(
    "order", [["cls", "png", "txt"], ["txt", "png", "cls"], ["png", "txt", "cls", "json"]]
)
def test_a_caption_beside_a_class_is_a_column(tmp_path: Path, order: list[str]) -> None:
    contents: dict[str, list[int | str]] = {
        "png": [1, 2],
        "cls": ["0", "1"],
        "txt": ["a photo", "a drawing"],
        "json": [json.dumps({"caption": "c", "url": None})] * 2,
    }
    members = [(f"{i}.{kind}", contents[kind][i]) for i in range(2) for kind in order]
    source = shard(tmp_path / "x.tar", *members)
    assert pairs(source) == [("0.png", 1, "0"), ("1.png", 2, "1")]
    assert source.columns["txt"] == ["a photo", "a drawing"]
    if "json" in order:
        assert source.columns["url"] == ["", ""]


def test_a_label_in_json_beside_a_caption_is_the_label(tmp_path: Path) -> None:
    source = shard(
        tmp_path / "x.tar",
        *(("0.png", 1), ("0.txt", "a photo"), ("0.json", '{"label": 1.0}')),
        *(("1.png", 2), ("1.txt", "a drawing"), ("1.json", '{"label": null}')),
        *(("2.png", 3), ("2.txt", "a picture"), ("2.cls", "1")),
    )
    assert pairs(source) == [("0.png", 1, "1"), ("1.png", 2, None), ("2.png", 3, "1")]


def test_texts_are_labels_where_there_is_nothing_else(tmp_path: Path) -> None:
    source = shard(tmp_path / "x.tar", ("0.png", 1), ("0.txt", "cat"), ("1.png", 2), ("1.txt", " "))
    assert pairs(source) == [("0.png", 1, "cat"), ("1.png", 2, None)]


def test_hidden_members_are_no_samples(tmp_path: Path) -> None:
    source = shard(
        tmp_path / "x.tar",
        *(("._1.png", 9), ("1.png", 1), ("__MACOSX/1.png", 9), (".git/2.png", 9), ("1.cls", "a")),
        *(("in/.ipynb_checkpoints/3.png", 9), ("in/3.png", 2), ("in/3.cls", "b")),
    )
    assert pairs(source) == [("1.png", 1, "a"), ("in/3.png", 2, "b")]


def test_labels_of_a_tar_may_be_its_folders(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", ("train/cat/1.png", 1), ("train/dog/1.png", 2))
    assert open_source(str(tmp_path / "x.tar"), labels="folder:-1").classes == ["cat", "dog"]


def test_broken_json_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*x\.tar"):
        shard(tmp_path / "x.tar", ("1.png", 1), ("1.json", "{"))


def test_an_index_of_an_earlier_version_is_made_anew(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", ("1.png", 1), ("1.cls", "a"))
    index = tmp_path / "x.tar.index.json"
    table = json.loads(index.read_text())
    index.write_text(json.dumps({"state": [1, *table["state"][1:]], "samples": []}))
    assert len(open_source(str(tmp_path / "x.tar"))) == 1


def forty(file: Path) -> list[int]:
    """Write 40 images; return where their headers are."""
    shard(file, *((f"{i:04d}.png", i) for i in range(40)))
    with tarfile.open(file) as tar:
        return [member.offset for member in tar.getmembers()]


@pytest.mark.parametrize(
    ("start", "damage"),
    [(10, b"\xff"), (0, bytes(512)), (148, b"77777777"), (0, b"\xff" * 512), (124, b"zzzz")],
)
@pytest.mark.parametrize("member", [1, 20, 39])
def test_a_damaged_header_is_refused_and_named(
    tmp_path: Path, member: int, start: int, damage: bytes
) -> None:
    file = tmp_path / "a.tar"
    offset = forty(file)[member]
    (tmp_path / "a.tar.index.json").unlink(missing_ok=True)
    data = bytearray(file.read_bytes())
    data[offset + start : offset + start + len(damage)] = damage
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar"):
        open_source(str(file))


def test_a_tar_that_was_cut_between_two_images_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.tar"
    offset = forty(file)[20]
    file.write_bytes(file.read_bytes()[:offset])
    assert len(open_source(str(file))) == 20
    assert "a.tar: has no end mark" in capfd.readouterr().err


def test_tars_that_were_joined_are_refused(tmp_path: Path) -> None:
    forty(tmp_path / "a.tar")
    joined = tmp_path / "b.tar"
    joined.write_bytes((tmp_path / "a.tar").read_bytes() * 2)
    with pytest.raises(UserError, match="tars that were joined"):
        open_source(str(joined))


def test_a_tar_padded_with_zeros_is_read(tmp_path: Path) -> None:
    forty(tmp_path / "a.tar")
    padded = tmp_path / "b.tar"
    padded.write_bytes((tmp_path / "a.tar").read_bytes() + bytes(1 << 20))
    assert len(open_source(str(padded))) == 40
