"""The live line: above it everything stays, below it nothing, and no line is too wide."""

import io
import random
from pathlib import Path

import pytest
from terminal import PYTHON, Seen, columns, in_terminal

from selfsup.core import live, progress
from selfsup.core.live import duration, fit, laid_out

WIDTHS = (40, 80, 120)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (45, "45 s"),
        (99.6, "2 min"),
        (720, "12 min"),
        (5_990, "1 h 40 min"),
        (7_500, "2 h 5 min"),
        (32_400, "9 h"),
        (35_999, "10 h"),
        (100_000, "28 h"),
        (273_600, "3 days 4 h"),
        (2_592_000, "30 days"),
    ],
)
def test_a_time_is_told_in_at_most_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("text", ["abcdefghij", "日本語の画像", "e\u0301" * 9, "😀 runs/😀😀😀"])
@pytest.mark.parametrize("width", [3, 5, 8, 30])
def test_a_text_is_cut_by_the_columns_that_it_takes(text: str, width: int) -> None:
    short = fit(text, width)
    assert live.columns_of(short) <= width
    assert short == text or short.endswith("...")


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", WIDTHS)
def test_a_sentence_is_broken_between_words_and_a_name_never(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "terminal_width", lambda: width)
    name = "runs/a-folder-whose-name-is-longer-than-any-terminal-of-that-width/" * 2
    sentence = f"warning: the disk is full, so that {name} cannot be written, and other words"
    lines = laid_out(sentence, Terminal()).split("\n")  # type: ignore[arg-type]
    assert " ".join(line.strip() for line in lines) == sentence
    assert all(len(line) <= width or line.strip() == name for line in lines)
    assert laid_out(f"{sentence}\n{sentence}", io.StringIO()) == f"{sentence}\n{sentence}"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_line_of_a_run_fits_whatever_it_shows(width: int) -> None:
    drawn = random.Random(0)
    for _ in range(300):
        total = drawn.choice([1, 456, 60_000, 2_000_000])
        bar = progress.TrainProgress(total, drawn.randrange(total), shown=False)
        names = drawn.sample([*progress.SHORT, *progress.FIRST, "distil", "prototypes"], 9)
        bar.figures(1, {name: drawn.choice([0.0, -1.5, 3e-8, 123456.7]) for name in names})
        if drawn.random() < 0.5:
            for done in (1, 2):
                bar.step(done)
        assert columns(bar._line(width)) <= width


def test_a_wide_terminal_has_a_longer_bar_and_more_figures() -> None:
    bar = progress.TrainProgress(400, 0, shown=False)
    names = [name for name in progress.FIRST if name not in ("knn", *progress.SHORT)]
    bar.figures(20, dict.fromkeys([*names, "images_per_s", "waiting"], 0.5))
    narrow, wide = bar._line(80), bar._line(120)
    assert narrow.count("─") == 16
    assert wide.count("─") == 24
    assert "rank 0.5" in narrow
    assert len(wide) > 100


def test_a_run_with_long_steps_shows_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("selfsup.core.progress.time.monotonic", lambda: now)
    bar = progress.TrainProgress(100, 0, shown=False)
    now = 50.0
    assert "0/100  first step 50 s" in bar._line(80)
    for done in (1, 2, 3):
        now += 90.0
        bar.step(done)
    assert "3/100  2 h 26 min left" in bar._line(80)
    now += 60.0  # it counts down within a step
    assert "3/100  2 h 24 min left" in bar._line(80)
    now += 600.0
    bar.activity = lambda: "waits for images"
    bar._line(80)
    now += 300.0
    assert "waits for images 300 s" in bar._line(80)


def test_the_pace_of_a_run_is_that_of_its_newest_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("selfsup.core.progress.time.monotonic", lambda: now)
    pace = progress.Pace(0)
    for done in range(1, 200):
        now += 60.0 if done == 1 else 1.0 if done < 100 else 3.0
        pace.step(done)
    assert pace.seconds == pytest.approx(3.0)
    assert pace.left(299) == pytest.approx(300.0)


def test_lines_of_a_log_have_at_most_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for total in (456, 2_000_000):
        bar = progress.TrainProgress(total, 0, shown=True)
        for done in (1, 2, 3):
            bar.step(done)
            bar.figures(done, dict.fromkeys(progress.FIRST, -0.012345))
        bar.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("step ") and len(line) <= 80 for line in lines)
    assert all("loss -0.0123  MAP@R -0.0123" in line for line in lines)


SCRIPT = """
import os, sys, time
from selfsup.core.live import display, doing, live
from selfsup.core.progress import bar

with live("begins"):
    time.sleep(1.2)
    doing("opens images with a name that is far longer than a terminal of eighty columns has room")
    time.sleep(1.0)
    print("a line")
    print("half a", end="", flush=True)
    time.sleep(0.5)
    print(" line")
    print("an error", file=sys.stderr)
    with bar("features of a", 40) as advance:
        for i in range(40):
            time.sleep(0.05)
            advance(1)
            if i % 10 == 5:
                print(f"at {i}")
    if os.fork() == 0:
        os._exit(3 if sys.stdout is sys.__stdout__ else 4)
    print("a child ends with", os.waitstatus_to_exitcode(os.wait()[1]))
    doing("writes")
    time.sleep(1.0)
print("the end")
"""


@pytest.fixture(scope="module")
def small_program(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return in_terminal([PYTHON, "-c", SCRIPT], tmp_path_factory.mktemp("terminal"))


def test_what_is_printed_stays_above_the_live_line(small_program: Seen) -> None:
    assert small_program.status == 0
    said = ["a line", "half a line", "an error", *(f"at {i}" for i in (5, 15, 25, 35))]
    assert small_program.lines == [*said, "a child ends with 3", "the end"]


def test_a_live_line_says_what_is_done_and_for_how_long(small_program: Seen) -> None:
    texts = [text for _, text in small_program.passing]
    assert "begins  1 s" in texts
    assert any(text.startswith("opens images with a name") for text in texts)
    assert any("features of a" in text and "━" in text and "s left" in text for text in texts)
    assert any(text.startswith("writes  ") for text in texts)


def test_no_live_line_is_wider_than_the_terminal(small_program: Seen) -> None:
    assert 60 < small_program.widest < 80


def test_a_pipe_gets_no_live_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with live.live("begins"), progress.bar("features", 3) as advance:
        advance(3)
        print("a line")
    assert capfd.readouterr().out == "a line\n"


def test_a_terminal_that_is_gone_does_not_hide_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(live._line, "erase", gone)
    monkeypatch.setattr(live._line, "replaced", {})
    live._line.end()
    assert live._line.ended.is_set()
