"""A log with one JSON object a line, of which a crash may have damaged any line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_steps(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines that are an object with a step, in order; others are skipped.

    A file that is missing has no lines.
    """
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # torn, no UTF-8, or nested without end
                continue
            if isinstance(record, dict) and type(record.get("step")) is int:
                yield record
