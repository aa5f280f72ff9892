"""Losses whose work is shared out among processes."""

from pathlib import Path

import pytest
import torch
from launch import ROOT, run, torchrun

from selfsup.losses import nt_xent
from selfsup.losses.shares import ALONE, Share, share_of, shared_out
from selfsup.losses.symmetric import _upper_blocks

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_a_loss_that_is_shared_out_is_the_loss(processes: int, tmp_path: Path) -> None:
    script = ROOT / "tests" / "workers" / "shares.py"
    done = run(*torchrun(processes), script, tmp_path / "found")
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / "found", weights_only=True)
    assert len(found) > 100
    single = {"nt-xent cold"}  # its rows are of float32
    for name, (error, _, equal) in found.items():
        assert error < (1e-5 if name in single else 1e-12), name
        assert equal, name
    shared = {name for name, (_, added, _) in found.items() if added}
    assert {"nt-xent", "info-nce queue", "dcl", "ibot", "self dino", "self swav"} <= shared
    assert len(shared) > 60


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("rows", [0, 1, 8, 2000, 4001])
def test_every_pair_of_rows_is_computed_by_one_process(processes: int, rows: int) -> None:
    seen = torch.zeros(rows, rows, dtype=torch.int32)
    for rank in range(processes):
        for a, b in _upper_blocks(rows, CPU, Share(rank, processes)):
            seen[a, b] += 1
            if a != b:
                seen[b, a] += 1
    assert (seen == 1).all()


def test_no_process_has_twice_the_work_of_another() -> None:
    for processes in (2, 4, 8, 32):
        work = []
        for rank in range(processes):
            blocks = _upper_blocks(65536, CPU, Share(rank, processes))
            work.append(sum((a.stop - a.start) * (b.stop - b.start) for a, b in blocks))
        assert max(work) <= 1.2 * min(work)


def test_small_losses_are_not_shared_out_and_rows_fewer_than_processes_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfsup.losses.shares.world", lambda: (1, 4))
    assert share_of(1000, 10**12, CPU) == ALONE
    with shared_out():
        assert share_of(1000, 10**12, CPU) == Share(1, 4)
        assert share_of(1000, 10**6, CPU) == ALONE
        assert share_of(1000, 10**9, GPU) == ALONE
        assert share_of(3, 10**12, CPU) == ALONE
        assert share_of(4, 10**12, CPU) == Share(1, 4)
        assert share_of(1000, 23_000_000, CPU) == Share(1, 4)  # three quarters of it are saved
        assert share_of(1000, 22_000_000, CPU) == ALONE
    assert share_of(1000, 10**12, CPU) == ALONE


def test_one_process_shares_nothing() -> None:
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    with shared_out():
        inside = nt_xent(x, x.flip(0), temperature=0.1)
    assert torch.equal(inside, nt_xent(x, x.flip(0), temperature=0.1))
