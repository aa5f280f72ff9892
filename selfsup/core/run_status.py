"""Read the status.json of a run, which `training/status.py` writes."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from selfsup.core.errors import InUseError, UnusableError, UserError, require
from selfsup.core.json_files import read_json
from selfsup.core.paths import exists, run_in
from selfsup.core.writer import is_running

SILENT = 30.0
"""Seconds without a heartbeat after which a run counts as gone."""


def read(folder: Path) -> dict[str, Any]:
    """Read a run's status; one that says it runs, and does not any more, has the state "gone".

    "checkpoint" is the step of the newest one; None if there is none.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    require(exists(str(folder)), f"{folder} does not exist")
    require(folder.is_dir(), f"{folder} is a file, and no run folder")
    folder = run_in(folder)
    file = folder / "status.json"
    try:
        status: dict[str, Any] = read_json(file)
        fresh = time.time() - float(status["heartbeat"]) < SILENT
        status["step"] = int(status["step"])
        status["state"], status["reason"] = str(status["state"]), str(status["reason"])
    except FileNotFoundError:
        raise UserError(f"{folder} has no status.json: no run has begun there") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableError(f"{file} cannot be read: {error}") from None
    status["checkpoint"] = _newest_checkpoint(folder)
    if status["state"] == "running":
        silent = time.time() - status["heartbeat"]
        if _has_died(status):
            return status | {"state": "gone", "reason": "its process was killed, or crashed"}
        if not fresh:
            reason = f"no heartbeat for {silent:.0f} s, although it did not end"
            return status | {"state": "gone", "reason": reason}
    return status


def _has_died(status: dict[str, Any]) -> bool:
    """Whether the process is known to be gone: of another machine that is not known."""
    here = status.get("host") == socket.gethostname() and os.name == "posix"
    return here and not is_running(status.get("pid"), status.get("born"))


def _newest_checkpoint(folder: Path) -> int | None:
    """Step of the newest checkpoint by its name; the run itself looks whether it is whole."""
    names = (path.name.removeprefix("step-") for path in (folder / "checkpoints").glob("step-*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


def describe(status: dict[str, Any]) -> str:
    """Describe a status in a few lines."""
    steps = str(status["step"])
    if status["state"] == "gone":  # it may have been further than its last heartbeat
        steps = f"{max(status['step'], status.get('checkpoint') or 0)} or more"
    total = f" of {status['total']}" if status.get("total") else ""
    lines = [f"{status['state']} after {steps}{total} steps"]
    if status["state"] == "done":
        return lines[0]
    if status["reason"]:
        lines.append(f"reason     {status['reason']}")
    if status.get("exit_status") is not None:
        lines.append(f"status     {status['exit_status']}")
    if status["state"] == "running":
        lines.append(f"process    {status.get('pid')} on {status.get('host')}")
    else:
        step = status.get("checkpoint")
        lines.append("checkpoint none yet" if step is None else f"checkpoint of step {step}")
        lines.append(f"go on with {status.get('command')}")
    return "\n".join(lines)


def exit_code(status: dict[str, Any]) -> int:
    """Return the exit status of a run that has ended; 6 while it runs, 1 if it is gone."""
    if status["state"] == "running":
        return InUseError.status
    return int(status["exit_status"]) if status.get("exit_status") is not None else 1
