"""Damaged files end with pixels or a sentence: see `tests/fuzz.py`, which has more on request."""

import json
import sys
from pathlib import Path

import pytest
from fuzz import MEMORY
from launch import ROOT, run
from odd_files import sized_png
from teachers import teacher

from selfsup.core.errors import UserError
from selfsup.data.decode import BadImage, decode_bytes
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.weights import read_file

CASES = ("--images", "400", "--others", "320")


@pytest.mark.slow
def test_files_that_are_damaged_at_random_raise_nothing_but_our_errors() -> None:
    done = run(sys.executable, ROOT / "tests" / "fuzz.py", *CASES, "--seed", "7")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["problems"] == []
    assert result["cases"] == 720
    assert result["memory"] < MEMORY
    assert sum(result["refused"].values()) > 300


@pytest.mark.parametrize("value", ["null", "[]", "{}", '"x"', "1e999", '"2"', "3.5"])
def test_a_bundle_whose_format_is_no_number_or_too_new_is_refused(
    value: str, tmp_path: Path
) -> None:
    teacher(tmp_path / "encoder")
    (tmp_path / "bundle.json").write_text(f'{{"format": {value}}}')
    with pytest.raises(UserError, match=r"bundle.json cannot be read|of a newer selfsup"):
        load_bundle(tmp_path)


def test_a_pickle_that_is_damaged_in_its_list_of_names_is_refused(tmp_path: Path) -> None:
    for i, data in enumerate(
        (b"\x80\x02cos\nsystem\nF", b"\x80\x02cos\nsystem\n\xff", b"\x80\x02F")
    ):
        (tmp_path / f"{i}.pth").write_bytes(data)
        with pytest.raises(UserError):
            read_file(tmp_path / f"{i}.pth")


@pytest.mark.parametrize("size", [(2_097_152, 40), (40, 2_097_152), (1, 65_536)])
def test_a_side_that_no_camera_has_is_a_damaged_number(size: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match="pixels"):
        decode_bytes(sized_png(*size))
