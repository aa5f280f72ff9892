"""Before the first step all processes compare what they are about to do."""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from selfsup.core.disk import cannot_write
from selfsup.core.distributed import gather_objects, on_main
from selfsup.core.errors import UserError, require

PATIENCE = 15.0
"""Seconds that a file may take to appear on another machine that shares the folder."""


def require_shared(folder: Path) -> None:
    """Check that all processes see the same folder, where the main one writes checkpoints.

    Otherwise some would go on with checkpoints of their own, or start again at the first step.

    Raises:
        UserError: on every process, if one does not see a file that the main process made.
    """
    require_agreement({"out": str(folder)})

    def mark() -> str:
        name = f".shared-{uuid4().hex[:12]}"
        try:
            (folder / name).touch()
        except OSError as error:
            raise cannot_write(folder, error.errno or 0, error) from None
        return name

    def remove() -> None:
        with contextlib.suppress(OSError):
            file.unlink()

    file = folder / on_main(mark)
    hosts = gather_objects("" if _appears(file) else socket.gethostname())
    on_main(remove)
    for rank, host in enumerate(hosts):
        require(
            not host,
            f"process {rank} on {host} does not see what process 0 writes to {folder}: --out must "
            "be a folder that all machines share",
        )


def _appears(file: Path) -> bool:
    """Wait until a file is there; return whether it is. A listing renews the cache of a network."""
    until = time.monotonic() + PATIENCE
    while True:
        there = file.parent.is_dir() and file.name in os.listdir(file.parent)
        if there or time.monotonic() > until:
            return there
        time.sleep(0.1)


def require_agreement(facts: dict[str, Any]) -> None:
    """Compare the facts of all processes by key.

    Args:
        facts: plain values, of this process.

    Raises:
        UserError: on every process, if a fact of any differs from the first one's.
    """
    first, *others = gather_objects(facts)
    for rank, theirs in enumerate(others, start=1):
        for key in {**first, **theirs}:
            if first.get(key) != theirs.get(key):
                raise UserError(
                    f"process {rank} has another {key} than process 0 ({_shown(first.get(key))} -> "
                    f"{_shown(theirs.get(key))}): start all with the same command and images"
                )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
