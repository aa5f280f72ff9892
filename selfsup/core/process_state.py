"""Restore the process's state after a call: random states, threads, warnings, process groups.

A script may have its own accelerator, seed and warning filters; a notebook calls more than once.
"""

import atexit
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState

from selfsup.core.distributed import finish
from selfsup.core.live import live


@contextmanager
def preserve_process_state() -> Iterator[None]:
    """Context manager or decorator: leave the process as it was before, also after an error.

    Restored: the CPU's random states of torch, numpy and Python, torch's number of threads and
    default dtype, filters of warnings, and environment variables. accelerate's state is reset if
    the caller had none. Random states of GPUs are not restored. If a launcher has started several
    processes, their process group stays open for the next call, since it cannot be opened twice; it
    is closed at exit.
    """
    random_states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    environment = dict(os.environ)
    had_accelerator = bool(AcceleratorState._shared_state)
    had_processes = bool(PartialState._shared_state)
    try:
        with warnings.catch_warnings(), live():
            yield
    finally:
        if dist.is_available() and dist.is_initialized():
            _close_at_exit()
        elif not had_accelerator:
            AcceleratorState._reset_state(reset_partial_state=not had_processes)
        torch.set_rng_state(random_states[0])
        np.random.set_state(random_states[1])
        random.setstate(random_states[2])
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        _restore(environment)


@cache
def _close_at_exit() -> None:
    """Close the process group at exit, once all processes are there.

    After an exception they are not: the launcher ends the processes that wait.
    """
    atexit.register(lambda: None if getattr(sys, "last_value", None) else finish())


def _restore(environment: dict[str, str]) -> None:
    """Set os.environ to what it was, changing only what differs."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
