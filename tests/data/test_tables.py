"""Manifests as people write them: long fields, quotes, separators, encodings."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from selfsup.core.errors import UserError
from selfsup.data.open import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        Image.new("RGB", (6, 6), (i,) * 3).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("length", [131_072, 140_000, 3_000_000])
@pytest.mark.parametrize("quote", ["", '"'])
def test_fields_may_be_of_any_length(folder: Path, length: int, quote: str) -> None:
    text = f"path,label,caption\n0.png,a,{quote}{'x' * length}{quote}\n1.png,b,y\n"
    (folder / "x.csv").write_text(text)
    before = csv.field_size_limit()
    source = open_source(str(folder / "x.csv"))
    assert source.classes == ["a", "b"]
    assert list(map(len, source.columns["caption"])) == [length, 1]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,label\n"0.png,a\n' + "1.png,b\n" * 20_000, 2),
        ('path,label\n0.png,a\n1.png,"b\n2.png,c\n', 3),
        ('path,label,caption\n0.png,a,x\n1.png,b,"he said\n2.png,c,y\n', 3),
        ('"path,label\n0.png,a\n', 1),
        ('path,label\n0.png,"a', 2),
    ],
)
def test_a_quote_that_is_never_closed_is_told_with_its_line(
    folder: Path, text: str, line: int
) -> None:
    (folder / "x.csv").write_text(text)
    with pytest.raises(UserError, match=f"a quote in the row from line {line} is never closed$"):
        open_source(str(folder / "x.csv"))


@pytest.mark.parametrize(
    "text",
    [
        'path,label\n"0.png,a\n1.png,b\n2.png",c\n',
        'path,label,caption\n0.png,a,"x\n1.png,b,"y\n2.png,c,z\n',
        'label,path,caption\na,0.png,"x\nb,1.png,x\nc,2.png,"z\n',
    ],
)
def test_a_quote_that_closes_rows_later_is_told(folder: Path, text: str) -> None:
    (folder / "x.csv").write_text(text)
    with pytest.raises(UserError, match="a quote in the row from line 2 closes rows later"):
        open_source(str(folder / "x.csv"))


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("path;label\n0.png;a\n", "separated by semicolons; write it with commas$"),
        ("path\tlabel\n0.png\ta\n", "separated by tabs; write it with commas$"),
        ("path|label\n0.png|a\n", "separated by bars; write it with commas$"),
        ("file_name,label\n0.png,a\n", "rename the column with the files of the images to path$"),
        ("path,label\n,a\n", "no path in row 1"),
        ("path,label\n0.png,a,b\n", "3 fields in line 2 and 2 columns: put fields that hold com"),
        ("path,label\n", "has no rows$"),
        ("", "has no rows$"),
    ],
)
def test_a_table_of_another_form_is_told_with_its_cure(folder: Path, text: str, cure: str) -> None:
    (folder / "x.csv").write_text(text)
    with pytest.raises(UserError, match=cure):
        open_source(str(folder / "x.csv"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_another_encoding_is_told_with_its_cure(folder: Path, kind: str, encoding: str) -> None:
    csv_text = "path,label\n0.png,cat\n" if encoding == "utf-16-le" else "path\n0.png,caf\xe9\n"
    text = csv_text if kind == "csv" else json.dumps({"path": "é"}, ensure_ascii=False)
    (folder / f"x.{kind}").write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=r"save it as UTF-8$"):
        open_source(str(folder / f"x.{kind}"))


@pytest.mark.parametrize(
    "rows", ["0.png,a,,\n1.png,b\n", '0.png,a\n\n"1.png","b"\n', "0.png,a\r\n1.png,b"]
)
def test_blank_fields_and_blank_lines_are_nothing(folder: Path, rows: str) -> None:
    (folder / "x.csv").write_text("path,label\n" + rows)
    source = open_source(str(folder / "x.csv"))
    assert source.classes == ["a", "b"]
    assert len(source) == 2


def test_lines_in_quotes_are_one_field(folder: Path) -> None:
    (folder / "two\nlines.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "x.csv").write_text('path,caption\n"two\nlines.png","a,\nb"\n')
    source = open_source(str(folder / "x.csv"))
    assert source.columns["caption"] == ["a,\nb"]
    assert source.pixels(0).shape == (6, 6, 3)


def test_rows_after_one_that_reads_like_the_end_of_the_file_count(folder: Path) -> None:
    (folder / "x.csv").write_text("path\n0.png\nthe end of the file\n1.png\n")
    names = ["0.png", "the end of the file", "1.png"]
    source = open_source(str(folder / "x.csv"))
    assert [source.name(i) for i in range(len(source))] == names


def test_columns_that_only_some_rows_have_are_blank_in_the_others(folder: Path) -> None:
    rows = [{"path": "0.png"}, {"path": "1.png", "camera": "a"}, {"path": "2.png", "label": 3}]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(str(folder / "x.jsonl"))
    assert source.columns == {"camera": ["", "a", ""]}
    assert source.labels is not None
    assert source.labels.tolist() == [-1, -1, 0]
