"""Writing checkpoints beside training: one at a time, in a thread, from copies in memory.

A write is promised by nobody before it is whole: who needs it on the disk waits for it.
"""

import threading
from collections.abc import Callable


class Saving:
    """The write that is under way, if one is; its error is raised in the thread that trains."""

    def __init__(self) -> None:
        """Begin without one."""
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def begin(self, write: Callable[[], object]) -> None:
        """Call `write` in a thread; the one before has to be done."""
        assert self._thread is None, "two checkpoints are written at once"

        def work() -> None:
            try:
                write()
            except Exception as error:  # of any kind: `check` raises it
                self._error = error

        self._thread = threading.Thread(target=work, name="selfsup checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a write that has failed, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until the write is on the disk.

        Raises:
            UserError: it cannot be written.
        """
        self.close()
        self.check()

    def close(self) -> None:
        """Wait until the write is over; a later `check` raises its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
