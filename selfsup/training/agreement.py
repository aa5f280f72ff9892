"""Before the first step all processes compare what they are about to do."""

from typing import Any

from selfsup.core.distributed import gather_objects
from selfsup.core.errors import UserError


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
