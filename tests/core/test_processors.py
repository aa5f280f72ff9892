"""Processors of this machine, counted by what happens on them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from selfsup.core.processors import cores, waited_for_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here"
)


@pytest.fixture
def one_core() -> Iterator[int]:
    """Bind this thread, and what it starts, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


def test_cores_are_those_that_the_process_may_use(one_core: int) -> None:
    assert cores() == 1


def test_a_thread_that_never_sleeps_computes_or_waits_for_its_core(one_core: int) -> None:
    before = waited_for_cores()
    if before is None:
        pytest.skip("this system does not count what threads wait")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        start, spent = time.monotonic(), time.process_time()
        while time.monotonic() < start + 1:
            pass
        after = waited_for_cores()
        seconds, spent = time.monotonic() - start, time.process_time() - spent
        other.kill()
    assert after is not None
    computed, waited = after[0] - before[0], after[1] - before[1]
    assert computed == pytest.approx(spent, rel=0.3)
    assert computed + waited == pytest.approx(seconds, rel=0.3)
    assert waited > 0.1
