"""Settings from elsewhere: what would fill the memory is refused in a moment."""

import os
import time
from pathlib import Path

import pytest

from selfsup.core.errors import UserError
from selfsup.core.yaml_files import parse_yaml, read_yaml
from selfsup.encoders.encoder import parse_arguments


def alias_bomb(kind: str) -> str:
    """Nine levels of nine: 9^9 values in 400 bytes."""
    start, end = ("[", "]") if kind == "list" else ("{", "}")
    item = "x" if kind == "list" else "{k}: x"
    lines = [f"a: &a {start}" + ", ".join(item.format(k=i) for i in range(9)) + end]
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        inner = f"*{old}" if kind == "list" else f"{{k}}: *{old}"
        lines.append(
            f"{new}: &{new} {start}" + ", ".join(inner.format(k=i) for i in range(9)) + end
        )
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (alias_bomb("list"), "expands to"),
        (alias_bomb("mapping"), "expands to"),
        ("seed: " + "[" * 20_000, "nested more than"),
        ("seed: " + "[" * 200 + "]" * 200, "nested more than"),
        ("a: &a [*a]", "nested more than"),
        ("a: &a {b: *a}", "nested more than"),
        ("seed: 2020-99-99", "not YAML"),
        ("seed: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_hostile_yaml_is_refused_in_a_second(text: str, sentence: str) -> None:
    began = time.process_time()  # not the clock: other work on the machine counts for nothing
    with pytest.raises(UserError, match=sentence):
        parse_yaml(text, "c.yaml")
    assert time.process_time() - began < 1


def test_honest_aliases_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: [*a, *a]", "x")[1]["c"] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("kind", ["fifo", "folder", "large"])
def test_what_is_no_file_of_settings_is_refused_without_reading(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "c.yaml"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_text("a: 1\n" * 300_000)
    with pytest.raises(UserError, match=r"c\.yaml"):
        read_yaml(file)


def test_arguments_of_an_encoder_are_bounded_too() -> None:
    with pytest.raises(UserError, match="encoder arguments"):
        parse_arguments(alias_bomb("list"))
