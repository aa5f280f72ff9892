"""Jobs that threads take in turn: in order, bounded, with one thread of torch in each."""

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from selfsup.core.threads import AHEAD, job_slices, map_ordered, run_blocks, single_threaded


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    first = threading.Event()

    def work(i: int) -> int:
        if threads > 1 and i == 0:
            assert first.wait(30), "no other thread went on"
        first.set()
        return i * i

    assert list(map_ordered(range(20), work)) == [i * i for i in range(20)]


def test_a_job_has_one_thread_of_torch_and_the_caller_keeps_its_own(threads: int) -> None:
    seen = list(map_ordered(range(2 * threads), lambda _: torch.get_num_threads()))
    assert seen == [1] * len(seen)
    assert torch.get_num_threads() == threads


def test_few_results_wait_to_be_taken(threads: int) -> None:
    begun: list[int] = []
    taken = map_ordered(range(100), begun.append)
    for done, _ in enumerate(taken):
        assert len(begun) <= done + 1 + AHEAD * threads
    assert sorted(begun) == list(range(100))


def test_what_a_job_raises_reaches_the_caller_and_ends_the_rest(threads: int) -> None:
    begun = []

    def work(i: int) -> None:
        begun.append(i)
        if i == 3:
            raise ValueError("job 3")

    with pytest.raises(ValueError, match="job 3"):
        list(map_ordered(range(1000), work))
    assert len(begun) < 50


def test_jobs_alone_leaves_the_jobs_shared_and_the_caller_with_one(threads: int) -> None:
    together = threading.Barrier(threads)
    with single_threaded():
        assert torch.get_num_threads() == 1
        assert len(list(job_slices(100))) == threads
        for _ in map_ordered(range(threads), lambda _: together.wait(30)):  # in as many threads
            pass
        with single_threaded():
            assert len(list(job_slices(100))) == threads
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100])
@pytest.mark.parametrize(("best", "room"), [(None, None), (5, None), (None, 6), (5, 1000), (5, 0)])
def test_job_slices_cover_all_rows_once(
    threads: int, total: int, best: int | None, room: int | None
) -> None:
    slices = list(job_slices(total, best, room))
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(total))
    assert total < 7 or len(slices) >= threads
    sizes = [part.stop - part.start for part in slices]
    assert len(list(job_slices(total, best, room, least=50))) <= len(slices)
    assert best is None or max(sizes, default=0) <= best
    if room:
        held = AHEAD * threads if threads > 1 else 1
        assert max(sizes, default=0) <= max(1, room // held)


def test_jobs_write_to_the_callers_inference_tensors(threads: int) -> None:
    with torch.inference_mode():
        counts = torch.zeros(10)

        def fill(part: slice) -> None:
            counts[part] += 1

        run_blocks(10, fill)
    assert counts.sum() == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_was_forked_has_threads_of_its_own(threads: int) -> None:
    run_blocks(10, lambda part: None)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        run_blocks(10, lambda part: done.extend(range(part.start, part.stop)))
        os._exit(0 if sorted(done) == list(range(10)) else 1)
    assert os.waitpid(child, 0)[1] == 0
