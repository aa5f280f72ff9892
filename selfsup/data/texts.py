"""Words of millions of images in little memory: their bytes, and 8 bytes for where each ends.

A list of strings takes some 60 bytes more for each, and reader processes, which count the
references to what they read, would copy all of it.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

BLOCK = 4096  # words that are decoded at a time


class Texts(Sequence[str]):
    """Words one after the other in bytes, decoded when they are read."""

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        """Take the bytes as uint8, and where each word ends as int64."""
        self.text = text
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]  # counts from the end, and raises IndexError
        start = int(self.ends[i - 1]) if i else 0
        return self.text[start : int(self.ends[i])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), BLOCK):
            ends = self.ends[first : first + BLOCK].tolist()
            block, offset = self.text[start : ends[-1]].tobytes(), start
            for end in ends:
                yield block[start - offset : end - offset].decode("utf-8", "surrogateescape")
                start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class TextsWriter:
    """Collects words into `Texts`."""

    def __init__(self) -> None:
        """Begin with none."""
        self.text = bytearray()
        self.ends = array("q")

    def add(self, word: str) -> None:
        """Append a word."""
        try:
            self.text += word.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half of a UTF-16 pair, as JSON that was cut off has
            self.text += word.encode("utf-8", "replace")
        self.ends.append(len(self.text))

    def fill(self, count: int) -> None:
        """Append blank words until there are `count`."""
        self.ends.extend([len(self.text)] * (count - len(self.ends)))

    def texts(self) -> Texts:
        """Return what was collected; nothing can be added any more."""
        return Texts(np.frombuffer(self.text, np.uint8), np.frombuffer(self.ends, np.int64))


def texts(words: Iterable[str]) -> Texts:
    """Lay words out one after the other.

    >>> list(texts(["north", "", "süd"]))
    ['north', '', 'süd']
    """
    writer = TextsWriter()
    for word in words:
        writer.add(word)
    return writer.texts()
