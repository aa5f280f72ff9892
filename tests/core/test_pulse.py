"""Who is named as stuck, by signs of life with made-up times."""

import os
import time
from typing import Any

import pytest

from selfsup.core import pulse
from selfsup.core.pulse import CALLER, DATA, STEP, Pulse, Sign


def watched(*processes: tuple[int, str, float, float]) -> Pulse:
    """A process 0 that has read these signs: step, doing, seconds since a beat and since a step."""
    now = time.monotonic()
    first = Pulse(0)
    first.longest = 1.0
    first.signs = {
        rank: Sign("elsewhere", 100 + rank, step, doing, 1, now - beat, now - moved)
        for rank, (step, doing, beat, moved) in enumerate(processes)
    }
    return first


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit statuses with which the process would have ended."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(pulse, "say_first", lambda sentence, status: print(sentence))
    return statuses


@pytest.mark.parametrize(
    ("processes", "named", "status"),
    [
        ([(5, STEP, 1, 1), (5, STEP, 1, 1)], "", []),
        ([(5, STEP, 1, 40), (5, STEP, 1, 40)], "", []),  # slow, and nobody waits
        ([(5, STEP, 1, 40), (5, DATA, 1, 40)], "waiting for process 1 (pid 101 on elsewhere)", []),
        ([(5, STEP, 1, 40), (4, STEP, 1, 40), (4, DATA, 1, 40)], "process 2", []),
        ([(5, CALLER, 1, 99999), (5, STEP, 1, 99999)], "evaluates between steps for 99999 s", []),
        ([(5, STEP, 1, 35), (5, STEP, 35, 35)], "no sign of life for 35 s", []),
        ([(5, STEP, 1, 50), (5, STEP, 50, 50)], "the run ends", [1]),
        ([(5, STEP, 1, 700), (5, DATA, 1, 700)], "the run ends", [1]),
        ([(5, STEP, 1, 700), (5, STEP, 1, 700)], "the run ends", [1]),
    ],
)
def test_a_process_is_named_when_the_others_wait_for_it(
    processes: Any,
    named: str,
    status: list[int],
    ends: list[int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = watched(*processes)
    first._judge()
    out, err = capfd.readouterr()
    assert named in out + err
    assert bool(out + err) == bool(named)
    assert ends == status
    first._judge()
    assert "waiting" not in capfd.readouterr().err  # said once


def test_slow_steps_have_ten_times_the_longest(ends: list[int]) -> None:
    first = watched((5, STEP, 1, 3000), (5, STEP, 1, 3000))
    first.longest = 400.0
    first._judge()
    assert ends == []
    first.longest = 200.0
    first._judge()
    assert ends == [1]
