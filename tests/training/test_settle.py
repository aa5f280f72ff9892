"""Resuming on four processes adds gradients in the order of a run that was never interrupted."""

import re

import pytest
from launch import ROOT, run, torchrun


@pytest.mark.slow
def test_throw_away_passes_make_resuming_exact_and_are_needed() -> None:
    done = run(*torchrun(4), ROOT / "tests" / "workers" / "settle.py")
    assert done.returncode == 0, done.stderr
    found = re.search(r"processes (\d) settled (\w+) raw (\w+)", done.stdout)
    assert found is not None, done.stdout
    assert found.groups() == ("4", "True", "False")
