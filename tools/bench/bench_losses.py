"""Time and memory of losses and miners beside pytorch-metric-learning and lightly.

    pip install -e '.[bench]' && python tools/bench/bench_losses.py

Forward and backward, two threads, width 128, normalised Euclidean or cosine. All candidates of a
row run in one process in shuffled rounds; the ratio is the median of the rounds' ratios. Memory is
the peak of a fresh process above its memory before the call.
"""

import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from timing import Work, paired, ratio

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError

WIDTH = 128
THREADS = 2
SMALL = 64  # a call at this size loads libraries, before memory is measured
Loss = Callable[..., Any]


class Row(NamedTuple):
    """One comparison: losses of n embeddings and labels, ours first."""

    n: int
    class_size: int
    """Embeddings of a class."""
    losses: dict[str, Loss]
    views: int = 1
    """Tensors that the embeddings come in."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time and memory of losses and miners beside their peers'."""

    rows: str = ""
    """Only rows whose name holds this text."""
    rounds: int = 7
    """Of each row, after one that is not counted."""
    memory: bool = True
    """Measure memory too, each in a fresh process."""
    only: str = ""
    """Internal: print the memory of one loss, as ROW/LOSS."""


def make_work(row: Row, name: str, n: int) -> Work:
    """Make a function that runs forward and backward of n random rows."""
    import torch

    g = torch.Generator().manual_seed(0)
    shape = n // row.views, WIDTH
    leaves = [torch.randn(shape, generator=g).requires_grad_() for _ in range(row.views)]
    y = torch.arange(n // row.class_size).repeat_interleave(row.class_size)
    loss = row.losses[name]

    def work() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves, y).backward()

    return work


def rows() -> dict[str, Row]:
    """All comparisons by name."""
    import torch
    from lightly.loss import DCLLoss, NTXentLoss

    from selfsup.losses.contrastive import dcl, nt_xent

    def views(loss: Callable[[Any, Any], Any], *, half: bool = False) -> Loss:
        def loss_of_views(a: Any, b: Any, labels: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                return loss(a, b)

        return loss_of_views

    ours = partial(nt_xent, temperature=0.1)
    lightly = NTXentLoss(temperature=0.1)
    plain = {"ours": views(ours), "lightly": views(lightly)}
    halved = {
        "ours": views(partial(ours, products=torch.bfloat16), half=True),
        "lightly": views(lightly, half=True),
    }
    decoupled = {
        "ours": views(partial(dcl, temperature=0.1)),
        "lightly": views(DCLLoss(temperature=0.1)),
    }
    return {
        **{f"NT-Xent, {n} images": Row(2 * n, 2, plain, 2) for n in (256, 1024, 4096)},
        "NT-Xent, 4096 images, bf16": Row(8192, 2, halved, 2),
        "NT-Xent, 8192 images": Row(16384, 2, plain, 2),
        "NT-Xent, 32768 images": Row(65536, 2, {"ours": views(ours)}, 2),
        "DCL, 4096 images": Row(8192, 2, decoupled, 2),
        **rows_with_labels(),
    }


def rows_with_labels() -> dict[str, Row]:
    """Comparisons with pytorch-metric-learning."""
    from pytorch_metric_learning import distances, losses, miners

    from selfsup.losses.contrastive import info_nce
    from selfsup.losses.measures import Distance
    from selfsup.losses.npairs import n_pairs
    from selfsup.losses.similarity import multi_similarity, supcon
    from selfsup.losses.triplet import triplet_margin, triplet_windows
    from selfsup.mining.distances import batch_hard

    d = Distance()
    hard, semi = miners.BatchHardMiner(), miners.TripletMarginMiner(0.2, "semihard")
    margin = losses.TripletMarginLoss(0.2)
    one_way = losses.SelfSupervisedLoss(losses.NTXentLoss(0.1), symmetric=False)
    dot = distances.DotProductSimilarity(normalize_embeddings=False)
    windows = partial(triplet_windows, distance=d, margin=0.2, semi_hard=True, active_only=True)
    info = {
        "ours": lambda a, b, y: info_nce(a, b, temperature=0.1),
        "pml": lambda a, b, y: one_way(a, b),
    }
    triplet_loss = partial(triplet_margin, distance=d, margin=0.2, active_only=True)
    return {
        "InfoNCE, 1024 images": Row(2048, 2, info, 2),
        # the peer needs 69 GB
        "InfoNCE, 4096 images": Row(8192, 2, {"ours": info["ours"]}, 2),
        "SupCon, 4096": Row(
            4096, 4, {"ours": partial(supcon, temperature=0.1), "pml": losses.SupConLoss(0.1)}
        ),
        "multi-similarity, 4096": Row(
            4096,
            4,
            {
                "ours": partial(multi_similarity, alpha=2, beta=50, base=0.5),
                "pml": losses.MultiSimilarityLoss(2, 50, 0.5),
            },
        ),
        "N-pairs, 4096": Row(
            4096,
            2,
            {
                "ours": partial(n_pairs, normalize=False, temperature=1, regularizer=0),
                "pml": losses.NPairsLoss(distance=dot),
            },
        ),
        "batch-hard, 4096": Row(
            4096,
            4,
            {
                "ours": lambda x, y: triplet_loss(x, batch_hard(x, y, distance=d)),
                "pml": lambda x, y: margin(x, y, hard(x, y)),
            },
        ),
        "semi-hard, 1024": Row(
            1024,
            4,
            {
                "ours": lambda x, y: windows(x, y)[0],
                "pml": lambda x, y: margin(x, y, semi(x, y)),
            },
        ),
        "semi-hard, 4096": Row(4096, 4, {"ours": lambda x, y: windows(x, y)[0]}),
    }


def peak_megabytes(row: str, loss: str) -> float:
    """Measure the memory of one call in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", f"{row}/{loss}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def measure_memory(only: str) -> float:
    """Measure the peak memory of a call above the memory before it, in megabytes."""
    name, loss = only.rsplit("/", 1)
    row = rows()[name]
    make_work(row, loss, SMALL)()
    work = make_work(row, loss, row.n)
    Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """Read a figure of this process in kilobytes, from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


def main(config: Config) -> None:
    """Print a row for each comparison."""
    import torch

    try:
        import lightly.loss  # noqa: F401
        import pytorch_metric_learning  # noqa: F401
    except ImportError:
        raise UserError("the peers are not installed: pip install 'selfsup[bench]'") from None
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    if config.only:
        print(measure_memory(config.only))
        return
    heads = ("ours ms", "peer ms", "ratio", "ours MB", "peer MB", "1/")
    print(" " * 37 + "".join(f"{head:>9s}" for head in heads))
    for name, row in rows().items():
        if config.rows not in name:
            continue
        works = {loss: make_work(row, loss, row.n) for loss in row.losses}
        spent = paired(works, config.rounds)
        mine, *peer = spent.values()
        cells = [statistics.median(mine) * 1e3]
        if peer:
            cells += [statistics.median(peer[0]) * 1e3, ratio(mine, peer[0]).median]
        line = (
            f"{name:37s}"
            + "".join(f"{c:9.1f}" for c in cells[:2])
            + "".join(f"{c:7.1f}" for c in cells[2:])
        )
        if config.memory:
            memory = [peak_megabytes(name, loss) for loss in row.losses]
            line = f"{line:62s}" + "".join(f"{m:9.0f}" for m in memory)
            if peer:
                line += f"{memory[1] / max(memory[0], 0.1):6.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    launch(main, Config)
