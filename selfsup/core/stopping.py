"""Stopping on request: the first signal ends the work at a good moment, the second at once.

Outside of `deferred` a signal raises at once; inside it is remembered, and who works there asks for
it between two steps. Launchers pass on what a terminal or a scheduler has sent to all processes, so
that a signal within DOUBLED seconds of the first is the same request.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

STOPPED, INTERRUPTED = 75, 130
"""Exit statuses: stopped on request, by Ctrl-C."""
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
DOUBLED = 3.0
PARENT = os.getppid()
LAST_SECONDS = 8.0
"""After its launcher's end a process may finish its step and a checkpoint for so long."""


class StopRequested(SystemExit):
    """A signal has asked for the end; it passes through the work like SystemExit."""

    def __init__(self, signum: int) -> None:
        """Remember which signal it was."""
        super().__init__(STOPPED)
        self.signum = signum


class _Requests:
    """What signals have asked for so far."""

    signum = 0
    at = 0.0
    depth = 0


def requested() -> int:
    """Return the number of the signal that has asked for the end; 0 for none."""
    return _Requests.signum


def stop(signum: int) -> None:
    """Leave the work because of that signal.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
        StopRequested: it was another.
    """
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise StopRequested(signum)


WAITS = b"\nstopping after this step, with a checkpoint; once more ends at once\n"
"""What a person reads who has to wait for a step."""


def _leave_lost_output() -> None:
    """Write to nowhere instead of what is gone, where every line would be an error."""
    for descriptor in (1, 2):
        if _is_lost(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _is_lost(descriptor: int) -> bool:
    """Whether this is a terminal that was closed, or a pipe that nobody reads any more."""
    try:
        os.write(descriptor, b"")
    except OSError:
        return True
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()  # to write nothing into a pipe is no error
    poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def stop_unread() -> bool:
    """Ask work whose output nobody reads any more to stop, as if its terminal had been closed.

    Under nohup, which ignores closed terminals, it goes on. Outside of `deferred`, where nobody
    waits for requests, nothing is done: False, and the error of the pipe is left to who writes.
    """
    if not _Requests.depth:
        return False
    _leave_lost_output()
    signal.raise_signal(getattr(signal, "SIGHUP", signal.SIGTERM))
    return True


def _handle(signum: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if signum == getattr(signal, "SIGHUP", None):
        _leave_lost_output()
    if not _Requests.signum:
        _Requests.signum, _Requests.at = signum, now
        if not _Requests.depth:
            stop(signum)
        if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
            os.write(2, WAITS)  # print may not be called again in the midst of itself
    elif now - _Requests.at > (DOUBLED if is_launched() else 0.3):
        os._exit(INTERRUPTED if signum == signal.SIGINT else STOPPED)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Take signals that ask for the end in the block; those that are ignored stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers
        return
    before = {}
    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if signal.getsignal(number) not in (signal.SIG_IGN, _handle):
            before[number] = signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _Requests.signum = 0


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Take signals in the block, and let it ask for them by `requested`."""
    with handled():
        _Requests.depth += 1
        try:
            yield
        finally:
            _Requests.depth -= 1


def say_if_late() -> None:
    """Say that a request was too late to stop anything: the work is done."""
    if _Requests.signum and not _Requests.depth:
        name = signal.Signals(_Requests.signum).name
        print(f"{name} came when the work was done", file=sys.stderr, flush=True)


def in_reader(*_: int) -> None:
    """Let a reader process ignore the signals: its parent ends it when the work is done.

    SIGTERM is ignored once only, since multiprocessing ends readers by it, too.
    """
    for name in NAMES:
        if hasattr(signal, name) and name != "SIGTERM":
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def first(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first)


def is_launched() -> bool:
    """Whether a launcher such as accelerate or torchrun has started this process."""
    names = ("RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")
    return any(name in os.environ for name in names)


def watch_parent() -> None:
    """End this process soon after its launcher is gone; without a launcher do nothing.

    A command of a shell goes on when the shell ends, as with nohup.
    """
    if is_launched() and not _watching.is_set() and hasattr(signal, "SIGTERM"):
        _watching.set()
        threading.Thread(target=_watch, daemon=True, name="selfsup parent").start()


_watching = threading.Event()
if hasattr(os, "register_at_fork"):  # a forked process has no such thread, and another parent
    os.register_at_fork(after_in_child=_watching.set)


def _watch() -> None:
    while os.getppid() == PARENT:
        time.sleep(1)
    with contextlib.suppress(OSError, ValueError):
        print("the launcher is gone: this process ends, too", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_SECONDS)
    os._exit(STOPPED)
