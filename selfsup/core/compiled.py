"""Loops that numba compiles for the CPU, once for a machine.

Compiled code is cached next to the file or, if that folder is read-only, in the user's cache folder
(NUMBA_CACHE_DIR sets another). Numba has no wheels for a few platforms. There an implementation in
torch replaces each loop, and the same tests run on both.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

COMPILING = "compiling loops for this processor, once; at most ten seconds"
ORDER_OF_SUMS = {"nsz", "arcp", "contract", "afn", "reassoc"}  # of LLVM's fast-math flags


@lru_cache
def available() -> bool:
    """Return whether this platform has numba."""
    return find_spec("numba") is not None


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, or load what an earlier process compiled.

    The compiler assumes that no number is infinite or nan.
    """
    return _compiled(function, fastmath=True)


def kernel_with_infinities(function: Callable[..., Any]) -> Any:
    """Compile as `kernel`, for loops that compare with infinity: sums may still be reordered."""
    return _compiled(function, fastmath=ORDER_OF_SUMS)


def _compiled(function: Callable[..., Any], *, fastmath: bool | set[str]) -> Any:
    """Return the compiled function; without numba the function itself, which is then not called."""
    if find_spec("numba") is None:
        return function
    import numba

    _announce_compiling()
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # every folder is read-only: each process compiles again
        return numba.njit(cache=False, **options)(function)


@lru_cache(maxsize=1)
def _announce_compiling() -> None:
    """Print one line when a loop is compiled, but not when it is loaded from the cache.

    Only the first process prints: readers and other ranks wait for the same reason.
    """
    from numba.core import event

    class Announcer(event.Listener):
        printed = False

        def on_start(self, started: Any) -> None:
            dispatcher = started.data["dispatcher"]
            ours = dispatcher.py_func.__module__.startswith("selfsup.")
            first = os.environ.get("RANK", "0") == "0" and not multiprocessing.parent_process()
            if ours and first and not self.printed:
                self.printed = True
                print(COMPILING, file=sys.stderr, flush=True)

        def on_end(self, ended: Any) -> None:
            pass

    event.register("numba:compile", Announcer())  # type: ignore[no-untyped-call]
