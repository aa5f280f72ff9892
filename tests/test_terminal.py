"""What a person sees of commands on a terminal of 80 columns: tidy lines, and no long silence."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launch import ROOT, called
from pictures import folder
from terminal import PYTHON, Seen, in_terminal

pytestmark = pytest.mark.slow

SILENT = 3.0
"""Seconds in which something on the screen has to change."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    place = tmp_path_factory.mktemp("terminal")
    folder(place / "images")
    return in_terminal([PYTHON, ROOT / "tests" / "workers" / "in_terminal.py", "images"], place)


def of_command(commands: Seen, name: str) -> list[str]:
    """The lines that one of the commands has left."""
    start = commands.lines.index(f"$ selfsup {name}") + 1
    ends = (i for i in range(start, len(commands.lines)) if commands.lines[i].startswith("$ "))
    return commands.lines[start : next(ends, len(commands.lines))]


def test_no_line_of_a_command_is_wider_than_the_terminal(commands: Seen) -> None:
    assert commands.status == 0, commands.lines
    assert [line for line in commands.lines if len(line) > 80] == []
    assert commands.widest <= 80


def test_nothing_is_silent_for_more_than_three_seconds(commands: Seen) -> None:
    seconds, line = commands.longest_silence()
    assert seconds < SILENT, f"{seconds:.1f} s after {line!r}"


def test_a_run_says_its_settings_its_needs_and_what_to_try_next(commands: Seen) -> None:
    lines = of_command(commands, "pretrain")
    assert lines[0] == "24 images, 120 steps of 8, 1 x cpu -> runs/a"
    rows = {line.split()[0] for line in lines if line.startswith("  ")}
    assert rows >= {"preset", "encoder", "batch", "rate", "memory", "disk", "selfsup"}
    (bar,) = [line for line in lines if "120/120  in " in line]
    assert "loss" in bar
    assert lines[-4] == "try next:"
    tried = [shlex.split(line) for line in lines[-3:]]
    assert [words[:2] for words in tried] == [
        ["selfsup", "knn"],
        ["selfsup", "finetune"],
        ["selfsup", "index"],
    ]
    assert all("runs/a" in words for words in tried)
    assert of_command(commands, "finetune")[-1] == "  selfsup search runs/b IMAGE"


def test_bars_of_one_command_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    @contextmanager
    def named(what: str, total: float, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
        names.append(what)
        yield lambda images: None

    for module in ("model", "classify"):
        monkeypatch.setattr(f"selfsup.evaluate.{module}.bar", named)
    flags = ("--model", "test_resnet", "--size", "32", "--baselines", "colours")
    done = called("tools/linear.py", *flags, "--data", folder(tmp_path / "x"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    models = ("test_resnet", "colours")
    wanted = {f"features of {name}" for name in models}
    assert set(names) == wanted | {f"measuring {name}: 100% of the labels" for name in models}
    assert len(names) == len(set(names))


def test_numbers_of_a_table_are_not_broken_into_two_lines(commands: Seen) -> None:
    lines = of_command(commands, "verify")
    rows = [line for line in lines if line.startswith((" AUC", " EER", " TAR", " balanced"))]
    assert len(rows) >= 5
    assert all(len(row.split("  ")) >= 5 for row in rows)
    facts = " ".join(lines[lines.index(rows[-1]) :])
    assert all(len(word.strip(",")) <= 8 for word in facts.split() if word[:2] in ("0.", "1."))


def test_figures_of_probes_show_beside_the_bar(commands: Seen) -> None:
    assert any("k-NN" in text and "/120" in text for _, text in commands.passing)


def test_a_command_that_was_told_can_be_pasted(tmp_path: Path) -> None:
    data = folder(tmp_path / "my images")
    flags = ["--data", data.name, "--out", "a run", "--batch", "8", "--steps", "1", "--no-report"]
    start = "import sys; from selfsup.__main__ import main; sys.argv[0] = 'selfsup'; main()"
    seen = in_terminal([PYTHON, "-c", start, "pretrain", *flags, "--views.size", "8"], tmp_path)
    assert seen.status == 0, seen.lines
    about = (tmp_path / "a run" / "about.json").read_text()
    assert "\"selfsup pretrain --data 'my images' --out 'a run' --batch 8 " in about
    index = shlex.split(seen.lines[-1])
    assert index == ["selfsup", "index", "--model", "a run", "--data", "my images"]
