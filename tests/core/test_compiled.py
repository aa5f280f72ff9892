"""Compiled loops: kept where one can write, announced once while they are compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT

from selfsup.core.compiled import COMPILING

pytestmark = pytest.mark.slow

LOOPS = """
from selfsup.core.compiled import kernel

@kernel
def double(x):
    return 2 * x

@kernel
def fourfold(x):
    return double(double(x))
"""
RUN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("selfsup.loops", "loops.py")
loops = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = loops
spec.loader.exec_module(loops)
print(loops.fourfold(3.0), loops.double(1))
"""


def run(folder: Path, cache: Path, **environment: str) -> str:
    """What a process prints on stderr that calls two compiled functions of `folder`."""
    names = {"XDG_CACHE_HOME": str(cache), "HOME": str(cache), "PYTHONPATH": str(ROOT)}
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "RANK")}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env=clean | names | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "12.0 2\n"
    return done.stderr


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """An installation beside whose files nothing can be kept, not even by root."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "loops.py").write_text(LOOPS)
    (folder / "__pycache__").write_text("no folder")
    return folder


def test_a_read_only_installation_keeps_its_loops_in_the_users_cache(
    read_only: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert run(read_only, cache) == f"{COMPILING}\n"  # once for both functions
    assert list(cache.rglob("*.nbc"))
    assert run(read_only, cache) == ""


def test_where_nothing_can_be_kept_loops_are_compiled_each_time(read_only: Path) -> None:
    nowhere = Path("/proc/nowhere")
    assert run(read_only, nowhere) == run(read_only, nowhere) == f"{COMPILING}\n"


def test_only_the_first_rank_announces(read_only: Path, tmp_path: Path) -> None:
    assert run(read_only, tmp_path / "cache", RANK="1") == ""
