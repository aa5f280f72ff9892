"""A folder's writer is known by its pid and by when that process was born."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfsup.core.errors import InUseError
from selfsup.core.writer import NAME, Writer, born, is_running


def quiet(line: str) -> None:
    pass


def test_a_processis_running_if_it_is_the_one_that_was_born_then() -> None:
    pid = os.getpid()
    assert is_running(pid, born(pid))
    assert is_running(pid, None)
    assert not is_running(pid, "1")
    assert not is_running(0, None)
    assert not is_running("7", None)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_running(ended.pid, None)


def test_a_live_writer_is_refused_and_a_pid_that_is_anothers_now_is_taken_over(
    tmp_path: Path,
) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        first = Writer(tmp_path)
        first.acquire(quiet)
        (file,) = tmp_path.glob(f"{NAME}*")
        mine = json.loads(file.read_text())
        file.write_text(json.dumps(mine | {"pid": other.pid, "born": born(other.pid)}))
        with pytest.raises(InUseError, match=str(other.pid)):
            Writer(tmp_path).acquire(quiet)
        file.write_text(json.dumps(mine | {"pid": other.pid, "born": "1"}))
        lines: list[str] = []
        third = Writer(tmp_path)
        third.acquire(lines.append)
        assert lines
        third.release()
    finally:
        other.kill()
        other.wait()
