"""JSON that somebody else may have written, or a crash has damaged."""

import errno
import json
import stat
from pathlib import Path
from typing import Any


def read_json(file: Path) -> Any:
    """Read a file.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
        ValueError: it is no JSON, or nested without end.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    return parse_json(file.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """Parse a text.

    Raises:
        ValueError: it is no JSON, or nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
