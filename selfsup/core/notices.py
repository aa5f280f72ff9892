"""Sentences that a user should read once, on the error stream: what was counted or left out."""

import multiprocessing
import os
import sys

from selfsup.core.live import laid_out

_printed: set[str] = set()


def notice(sentence: str) -> None:
    """Print a sentence, once in a process.

    Only the first process prints: reader processes and other ranks would repeat it.
    """
    first = os.environ.get("RANK", "0") == "0" and multiprocessing.parent_process() is None
    if first and sentence not in _printed:
        _printed.add(sentence)
        safe = sentence.encode("utf-8", "backslashreplace").decode()  # names may hold any bytes
        print(laid_out(safe, sys.stderr), file=sys.stderr, flush=True)
