"""Out of memory, on the host or a GPU: told from other errors, and said in one sentence."""

import contextlib
import errno
from collections.abc import Iterator

from selfsup.core.errors import NoRoomError

SENTENCES = (
    *("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory"),
    *("alloc_failed", "std::bad_alloc", "could not create a primitive"),
)
"""What libraries say in errors that have no class of their own, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full, by its class, its errno or its words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # torch's class, without importing torch
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(sentence in words for sentence in SENTENCES)


@contextlib.contextmanager
def shortage_named() -> Iterator[None]:
    """Turn an error of full memory in the block into one that a user can act on.

    Raises:
        NoRoomError: memory was full.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:120]
        raise NoRoomError(
            f"out of memory{f' ({said})' if said else ''}: nothing half was written. Free some, "
            "or take less at a time: a lower --memory or fewer --workers, in training a "
            "--micro-batch"
        ) from None
