"""Headers of .safetensors files, judged before they are parsed."""

import stat
from pathlib import Path

from selfsup.core.errors import UnusableError

LARGEST_HEADER = 8 << 20
"""Bytes; a tensor has about a hundred, and a network of a thousand layers 0.5 MB."""


def check_header(file: Path) -> None:
    """Refuse a header that would take seconds and gigabytes to parse.

    Example: 4 million names of tensors without a number are 200 MB.

    Raises:
        UnusableError: it is too large, cut, or the file is a pipe or a device.
        FileNotFoundError: there is no file.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnusableError(f"{file} is a pipe, a device or a folder, not a file of weights")
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
    if LARGEST_HEADER < size <= status.st_size:  # a damaged number is larger than the file
        raise UnusableError(
            f"{file} names more tensors than a network has: {size / 1e6:.0f} MB of names, more "
            f"than {LARGEST_HEADER / 1e6:.0f}"
        )
