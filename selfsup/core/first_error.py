"""Of several processes that end, the first to know why says it, once."""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from selfsup.core.live import laid_out
from selfsup.core.stopping import PARENT, is_launched
from selfsup.core.writer import born

PATIENCE = 3.0
"""Seconds in which the process that knows the cause may still be about to say it."""
OLD = 3600.0


def say_first(sentence: str, status: int) -> None:
    """Print a sentence on the standard error, unless another process has named a cause already."""
    if _claim(status):
        print(laid_out(sentence, sys.stderr), file=sys.stderr, flush=True)


def status_of_first() -> int | None:
    """Wait a moment for another process to name a cause; return its exit status, None without."""
    if _place() is None:
        return None
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            first = json.loads(_existing().read_text())
            if first["pid"] != os.getpid():
                return int(first["status"])
        time.sleep(0.1)
    return None


def _claim(status: int) -> bool:
    """Whether this process is the first of its launcher's to name a cause."""
    place = _place()
    if place is None:
        return True
    try:
        for old in place.parent.glob("selfsup-end-*"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > OLD:
                    old.unlink()
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError:
        return True  # nowhere to agree: better twice than never
    with os.fdopen(handle, "w") as out:
        json.dump({"pid": os.getpid(), "status": status}, out)
    return True


def _existing() -> Path:
    place = _place()
    assert place is not None
    return place


def _place() -> Path | None:
    """The file of this launcher's processes on this machine; None without a launcher.

    A restart by the launcher has a number of its own.
    """
    if not is_launched() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    port = os.environ.get("MASTER_PORT", "0")
    name = f"selfsup-end-{PARENT}-{born(PARENT)}-{port}-{restart}"
    return Path(tempfile.gettempdir()) / name
