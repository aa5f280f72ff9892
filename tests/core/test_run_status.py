"""What a person reads of a run: how it ended, and what there is to go on from."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from selfsup.core.errors import UserError
from selfsup.core.run_status import describe, read
from selfsup.core.writer import born

RUNNING = {
    **{"state": "running", "step": 7, "total": 9, "reason": "", "exit_status": None},
    **{"command": "selfsup pretrain", "host": socket.gethostname(), "pid": os.getpid()},
}


def status(folder: Path, **values: Any) -> dict[str, Any]:
    """What is read of a run whose process is this one, but for `values`."""
    known = {"born": born(os.getpid()), "heartbeat": time.time()}
    (folder / "status.json").write_text(json.dumps(RUNNING | known | values))
    return read(folder)


def test_a_run_that_is_done_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    found = status(tmp_path, state="done", step=9, reason="done", exit_status=0)
    assert describe(found) == "done after 9 of 9 steps"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"born": "1"}, "its process was killed, or crashed"),  # the number is another's now
        ({"heartbeat": 1.0}, "no heartbeat for "),
        ({"host": "elsewhere", "born": "1", "heartbeat": 1.0}, "no heartbeat for "),
    ],
)
def test_a_run_without_its_process_is_gone(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    found = status(tmp_path, **values)
    assert found["state"] == "gone"
    assert found["reason"].startswith(reason)
    assert describe(found).startswith("gone after 7 or more of 9 steps\n")
    assert describe(found).endswith("checkpoint none yet\ngo on with selfsup pretrain")


def test_a_run_that_was_killed_before_its_heartbeat_went_as_far_as_its_checkpoint(
    tmp_path: Path,
) -> None:
    (tmp_path / "checkpoints" / "step-00000020").mkdir(parents=True)
    found = status(tmp_path, step=0, total=None, born="1")
    assert describe(found).startswith("gone after 20 or more steps\n")


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "list.csv").touch()
    with pytest.raises(UserError, match=r"list\.csv is a file, and no run folder"):
        read(tmp_path / "list.csv")


def test_of_another_machine_only_the_heartbeat_is_known(tmp_path: Path) -> None:
    assert status(tmp_path, host="elsewhere", born="1")["state"] == "running"
    assert status(tmp_path)["state"] == "running"


def test_the_newest_checkpoint_is_named(tmp_path: Path) -> None:
    for name in ("step-00000020", "step-00000100", ".step-00000200.part", "step-best"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    found = status(tmp_path, state="stopped", reason="SIGTERM", exit_status=75)
    assert "reason     SIGTERM\nstatus     75\ncheckpoint of step 100\n" in describe(found)
