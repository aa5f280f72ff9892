"""Loops that numba compiles, where it is installed (`pip install 'selfsup[fast]'`).

Each has a form in torch beside it that does the same on any device, and the same tests run on both.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

ORDER_OF_SUMS = {"nsz", "arcp", "contract", "afn", "reassoc"}  # of LLVM's fast-math flags


@lru_cache
def available() -> bool:
    """Whether numba can be imported."""
    return find_spec("numba") is not None


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call; the result is kept beside the file or in the user's cache.

    The compiler assumes that no number is infinite or nan.
    """
    return _compiled(function, fastmath=True)


def kernel_with_infinities(function: Callable[..., Any]) -> Any:
    """Compile as `kernel`, for loops that compare with infinity: sums may still be reordered."""
    return _compiled(function, fastmath=ORDER_OF_SUMS)


def _compiled(function: Callable[..., Any], *, fastmath: bool | set[str]) -> Any:
    """The compiled function; without numba the function itself, which nobody calls then."""
    if find_spec("numba") is None:
        return function
    import numba

    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither place can be written to
        return numba.njit(cache=False, **options)(function)
