"""A file at a URL as a stream: what reads a tar from its start to its end needs."""

import io

from selfsup.data.decode import BadImage
from selfsup.data.remote import RemoteFile

FIRST, LARGEST = 256 << 10, 32 << 20
"""Bytes of the first request after a jump, and of the largest of those that follow each other."""
SKIPPED = 1 << 20
"""A longer gap is jumped over; a shorter one takes less time to read than another request."""


class RemoteStream(io.RawIOBase):
    """Read a file in windows that double while they follow each other.

    Tars of small images come in few large requests; of members of several MB only the neighbourhood
    of their headers is read.
    """

    def __init__(self, file: RemoteFile) -> None:
        """Begin at the start of a file."""
        super().__init__()
        self.file = file
        self.at = 0
        self.window, self.window_start, self.ahead = b"", 0, FIRST

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place; nothing is read."""
        self.at = offset + {0: 0, 1: self.at, 2: self.file.size}[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        """Read bytes; fewer at the end of the file.

        Raises:
            OSError: the file has changed since it was opened.
        """
        end = self.file.size if size < 0 else min(self.file.size, self.at + size)
        parts = []
        while self.at < end:
            if not 0 <= self.at - self.window_start < len(self.window):
                self._fetch()
            offset = self.at - self.window_start
            parts.append(self.window[offset : offset + end - self.at])
            self.at += len(parts[-1])
        return b"".join(parts)

    def _fetch(self) -> None:
        """Read the window that begins here."""
        gap = self.at - (self.window_start + len(self.window))
        follows = bool(self.window) and 0 <= gap <= SKIPPED
        self.ahead = min(2 * self.ahead, LARGEST) if follows else FIRST
        size = min(self.ahead, self.file.size - self.at)
        try:
            self.window, self.window_start = self.file.read(self.at, size, keep=False), self.at
        except BadImage as error:
            raise OSError(str(error)) from None
