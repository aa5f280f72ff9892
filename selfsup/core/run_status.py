"""Read the status.json of a run, which `training/status.py` writes."""

import time
from pathlib import Path
from typing import Any

from selfsup.core.errors import InUseError, UnusableError, UserError, require
from selfsup.core.json_files import read_json
from selfsup.core.paths import exists, run_in

SILENT = 30.0
"""Seconds without a heartbeat after which a run counts as gone."""


def read(folder: Path) -> dict[str, Any]:
    """Read a run's status; one that says it runs, without a heartbeat, has the state "gone".

    Raises:
        UserError: there is none, or it cannot be read.
    """
    require(exists(str(folder)), f"{folder} does not exist")
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
    if status["state"] == "running" and not fresh:
        silent = time.time() - status["heartbeat"]
        reason = f"no heartbeat for {silent:.0f} s, although it did not end"
        return status | {"state": "gone", "reason": reason}
    return status


def describe(status: dict[str, Any]) -> str:
    """Describe a status in a few lines."""
    lines = [f"{status['state']} after {status['step']} of {status.get('total')} steps"]
    if status["reason"]:
        lines.append(f"reason     {status['reason']}")
    if status.get("exit_status") is not None:
        lines.append(f"status     {status['exit_status']}")
    if status["state"] == "running":
        lines.append(f"process    {status.get('pid')} on {status.get('host')}")
    elif status["state"] != "done":
        lines.append(f"go on with {status.get('command')}")
    return "\n".join(lines)


def exit_code(status: dict[str, Any]) -> int:
    """Return the exit status of a run that has ended; 6 while it runs, 1 if it is gone."""
    if status["state"] == "running":
        return InUseError.status
    return int(status["exit_status"]) if status.get("exit_status") is not None else 1
