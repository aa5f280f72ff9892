"""Run jobs in a pool of threads: each thread takes the next job when it is done with the last.

Inside a job torch has one thread. Small matrix products, which fit in a processor's cache, are
faster in one thread each than split over all threads, since splitting has to wait for the slowest.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


_POOL_SIZE: ContextVar[int] = ContextVar("threads of the pool")


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep torch single-threaded inside this block; jobs still use all threads.

    After an operation on several threads, torch's threads wait actively for more work. That would
    take time from jobs that follow at once.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    token = _POOL_SIZE.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _POOL_SIZE.reset(token)


def _threads() -> int:
    return _POOL_SIZE.get(torch.get_num_threads())


def map_ordered(jobs: Iterable[Job], work: Callable[[Job], Result]) -> Iterator[Result]:
    """Yield work(job) of each job, in the order of the jobs, by as many threads as torch has.

    Nothing begins before the first result is asked for. Then at most two jobs for each thread are
    running or done and not yet taken, so that memory stays bounded. Within a job torch has one
    thread; with one thread in all, jobs run here. An error comes in its job's place, and jobs that
    have not begun are dropped.
    """
    threads = _threads()
    if threads < 2:
        yield from map(work, jobs)
        return
    pool, mode = _pool(threads), torch.is_inference_mode_enabled()

    def in_mode(job: Job) -> Result:
        with torch.inference_mode(mode):  # each thread has its own inference mode
            return work(job)

    started: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            started.append(pool.submit(in_mode, job))
            if len(started) >= AHEAD * threads:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        for future in started:
            future.cancel()


AHEAD = 2
"""Number of jobs of each thread that are started before the first result is taken."""


def job_slices(
    total: int, best: int | None = None, room: int | None = None, *, least: int = 1
) -> Iterator[slice]:
    """Cut `total` rows into slices, a job for a thread each.

    One slice for each thread, unless that breaks a limit: slices are lengthened to `least`, then
    shortened to `best`, then shortened to what `room` allows, so `room` goes before `best`, and
    `best` before `least`. The last slice may be shorter.

    Args:
        total: rows.
        best: most rows of a job, where larger jobs are not faster.
        room: most rows in memory at a time, over all jobs that `map_ordered` has begun: two for
            each thread, or one without threads.
        least: rows below which starting a job costs more than it gains.

    Example: 10 rows on 4 threads are 0:3, 3:6, 6:9, 9:10; with least=5 they are 0:5, 5:10.
    """
    threads = _threads()
    size = max(least, -(-total // threads))
    if best is not None:
        size = min(size, best)
    if room is not None:
        size = min(size, room // (AHEAD * threads if threads > 1 else 1))
    size = max(1, size)
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def run_jobs(jobs: Iterable[Job], work: Callable[[Job], None]) -> None:
    """Run jobs as `map_ordered` does, for work that writes its results itself."""
    for _ in map_ordered(jobs, work):
        pass


def run_blocks(n: int, work: Callable[[slice], None]) -> None:
    """Call `work` on slices that cover n rows, one for each of torch's threads."""
    run_jobs(job_slices(n), work)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Start a pool, which is cached: starting a thread takes longer than a job."""
    pool, caller_threads = ThreadPoolExecutor(threads), torch.get_num_threads()
    barrier = Barrier(threads)

    def use_one_thread() -> None:
        barrier.wait()  # each thread of the pool runs this once
        torch.get_num_threads()  # a thread's first call resets its number, also after it was set
        torch.set_num_threads(1)

    for future in [pool.submit(use_one_thread) for _ in range(threads)]:
        future.result()
    torch.set_num_threads(caller_threads)  # of this thread, and of threads that start later
    return pool


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has no threads
