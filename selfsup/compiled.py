"""Loops that numba compiles, where it is installed (`pip install 'selfsup[fast]'`).

Each has a form in torch beside it that does the same on any device, and the same tests run on both.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch


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


def in_parts(n: int, work: Callable[[slice], None]) -> None:
    """Call `work` on slices that cover n rows, one for each of torch's threads."""
    threads = min(torch.get_num_threads(), n)
    if threads < 2:
        work(slice(0, n))
        return
    edges = [n * i // threads for i in range(threads + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    list(_pool(threads).map(work, parts))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept, since a tile is done in less time than it takes to start a thread."""
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along
