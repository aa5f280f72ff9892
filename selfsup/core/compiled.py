"""Loops that numba compiles, where it is installed (`pip install 'selfsup[fast]'`).

Each has a form in torch beside it that does the same on any device, and the same tests run on both.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any


@lru_cache
def available() -> bool:
    """Whether numba can be imported."""
    return find_spec("numba") is not None


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call; the result is kept beside the file or in the user's cache."""
    import numba

    def compile_with(*, cache: bool) -> Any:
        return numba.njit(cache=cache, nogil=True, fastmath=True, error_model="numpy")(function)

    try:
        return compile_with(cache=True)
    except RuntimeError:  # neither can be written to
        return compile_with(cache=False)
