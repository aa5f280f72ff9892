"""Reader processes end when their process does, whoever still holds what they read."""

import atexit
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from torch.utils.data import DataLoader

from selfsup.core.errors import UserError

_begun: "WeakSet[Any]" = WeakSet()


def begin(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start a loader's readers and return its batches.

    At its end Python sends readers SIGTERM once and waits for them. They ignore the first one
    (`core.stopping.in_reader`), so that a process would never end in which an exception, or a loop
    that was left, still holds the batches. This hook is registered later, and so runs before.
    """
    batches = iter(loader)
    if not _begun:
        atexit.unregister(_end)
        atexit.register(_end)  # behind multiprocessing's own
    _begun.add(batches)
    return _unwrapped(batches)


def _unwrapped(batches: Iterator[Any]) -> Iterator[Any]:
    """Raise a reader's error for the user as it was: torch puts it behind a traceback."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UserError as error:
            sentence = str(error).strip().splitlines()[-1]
            name = f"{type(error).__module__}.{type(error).__qualname__}: "
            raise type(error)(sentence.removeprefix(name)) from None
        yield batch


def _end() -> None:
    for batches in list(_begun):
        shutdown = getattr(batches, "_shutdown_workers", None)  # without readers there is none
        if shutdown is not None:
            shutdown()
