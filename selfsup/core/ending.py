"""How work ends: who keeps a status or a lock hears of the exit status and the reason."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from selfsup.core.errors import UserError
from selfsup.core.secrets import without_passwords
from selfsup.core.stopping import INTERRUPTED, StopRequested

AtEnd = Callable[[int, str], None]
_callbacks: list[AtEnd] = []


def at_end(callback: AtEnd) -> None:
    """Call `callback(status, reason)` once, when the work that runs now ends."""
    _callbacks.append(callback)


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Run a block of work, and tell those who asked how it ended."""
    status, reason = 1, "a bug in selfsup"
    try:
        yield
        status, reason = 0, "done"
    except BaseException as error:
        status, reason = _outcome(error)
        raise
    finally:
        tell(status, reason)


def tell(status: int, reason: str) -> None:
    """Tell those who asked how the work ends."""
    while _callbacks:
        with contextlib.suppress(Exception):
            _callbacks.pop()(status, reason)


def _outcome(error: BaseException) -> tuple[int, str]:
    """Exit status and reason of an exception that ends the work."""
    if isinstance(error, UserError):
        return error.status, str(error)
    if isinstance(error, StopRequested):
        return int(error.code or 0), signal.Signals(error.signum).name
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "Ctrl-C"
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else 0 if not error.code else 1), "exit"
    return 1, without_passwords(f"{type(error).__name__}: {error}")
