"""Work shared among threads that do not wait for one another: each takes the next job.

Inside a job torch has one thread. A product that is shared out and waited for costs more than it
gains when it is small enough to stay in a processor's cache.
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


_SHARED: ContextVar[int] = ContextVar("threads that share jobs")


@contextmanager
def single_threaded() -> Iterator[None]:
    """Torch has one thread between jobs too, for small steps among many jobs.

    Its other threads go on spinning for a while after each shared operation, in the jobs' time.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    held = _SHARED.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _SHARED.reset(held)


def _threads() -> int:
    return _SHARED.get(torch.get_num_threads())


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
        with torch.inference_mode(mode):  # which threads do not share
            return work(job)

    begun: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            begun.append(pool.submit(in_mode, job))
            if len(begun) >= AHEAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for left in begun:
            left.cancel()


AHEAD = 2
"""Jobs for each thread that are begun or done before the first result is taken."""


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
    """As `map_ordered`, for work that leaves what it finds elsewhere."""
    for _ in map_ordered(jobs, work):
        pass


def run_blocks(n: int, work: Callable[[slice], None]) -> None:
    """Call `work` on slices that cover n rows, one for each of torch's threads."""
    run_jobs(job_slices(n), work)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept, since a job is done in less time than it takes to start a thread."""
    pool, own = ThreadPoolExecutor(threads), torch.get_num_threads()
    together = Barrier(threads)

    def alone() -> None:
        together.wait()  # so that each thread comes here once
        torch.get_num_threads()  # a thread's first question sets its number, also after it was set
        torch.set_num_threads(1)

    for ready in [pool.submit(alone) for _ in range(threads)]:
        ready.result()
    torch.set_num_threads(own)  # of the thread that asked, and of those that come
    return pool


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along
