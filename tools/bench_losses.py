"""Time and memory of losses and miners beside pytorch-metric-learning and lightly.

    pip install -e '.[bench]' && python tools/bench_losses.py

Forward and backward, two threads, width 128, normalised Euclidean or cosine. All candidates of a
row run in one process in shuffled rounds; the ratio is the median of the rounds' ratios. Memory is
the most that a fresh process holds above what it held before the call.
"""

import random
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from selfsup.cli import run as launch

WIDTH = 128
THREADS = 2
Work = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time and memory of losses and miners beside their peers'."""

    rows: str = ""
    """Only rows whose name holds this text."""
    rounds: int = 7
    """Of each row, after one that is not counted."""
    memory: bool = True
    """Measure memory too, each in a process of its own."""
    only: str = ""
    """For the tool's own use: print the memory of this row's side, as ROW/SIDE."""


def embeddings(n: int) -> Any:
    """Random rows that want a gradient."""
    import torch

    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()


def classes(n: int, each: int) -> Any:
    """Labels with `each` of a class."""
    import torch

    return torch.arange(n // each).repeat_interleave(each)


def through(loss: Callable[[Any], Any], x: Any) -> Work:
    """Forward and backward."""

    def work() -> None:
        x.grad = None
        loss(x).backward()

    return work


def two_views(n: int, bf16: bool = False) -> dict[str, Callable[[], Work]]:
    """NT-Xent of n images, ours and lightly's."""
    import torch

    def ours() -> Work:
        from selfsup.losses.contrastive import nt_xent

        return through(lambda x: under(lambda: nt_xent(*x.chunk(2), temperature=0.1)), data())

    def lightly() -> Work:
        from lightly.loss import NTXentLoss

        loss = NTXentLoss(temperature=0.1)
        return through(lambda x: under(lambda: loss(*x.chunk(2))), data())

    def data() -> Any:
        return embeddings(2 * n)

    def under(loss: Callable[[], Any]) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return loss()

    return {"ours": ours, "lightly": lightly}


def labelled(
    n: int, each: int, ours: Callable[[Any, Any], Any], theirs: Callable[[Any, Any], Any]
) -> dict[str, Callable[[], Work]]:
    """A loss of n embeddings with `each` of a class, ours and pytorch-metric-learning's."""

    def side(loss: Callable[[Any, Any], Any]) -> Callable[[], Work]:
        def make() -> Work:
            y = classes(n, each)
            return through(lambda x: loss(x, y), embeddings(n))

        return make

    return {"ours": side(ours), "pml": side(theirs)}


def rows() -> dict[str, dict[str, Callable[[], Work]]]:
    """Every comparison by name."""
    from pytorch_metric_learning import distances, losses, miners

    from selfsup.losses.contrastive import dcl, info_nce
    from selfsup.losses.npairs import n_pairs
    from selfsup.losses.similarity import multi_similarity, supcon
    from selfsup.losses.triplet import triplet_margin, triplet_windows
    from selfsup.mining.distances import batch_hard
    from selfsup.numerics import Distance

    d = Distance()
    hard, semi = miners.BatchHardMiner(), miners.TripletMarginMiner(0.2, "semihard")
    margin = losses.TripletMarginLoss(0.2)
    ntxent = losses.NTXentLoss(0.1)
    dot = distances.DotProductSimilarity(normalize_embeddings=False)

    def one_way(x: Any) -> Any:
        return losses.SelfSupervisedLoss(ntxent, symmetric=False)(*x.chunk(2))

    def decoupled(x: Any) -> Any:
        from lightly.loss import DCLLoss

        return DCLLoss(temperature=0.1)(*x.chunk(2))

    def batch_hard_loss(x: Any, y: Any) -> Any:
        return triplet_margin(
            x, batch_hard(x, y, distance=d), distance=d, margin=0.2, active_only=True
        )

    return {
        **{f"NT-Xent, {n} images": two_views(n) for n in (256, 1024, 4096)},
        "NT-Xent, 4096 images, bf16 autocast": two_views(4096, bf16=True),
        "NT-Xent, 8192 images": two_views(8192),
        "NT-Xent, 32768 images": {"ours": two_views(32768)["ours"]},
        "SupCon, 4096": labelled(
            4096, 4, lambda x, y: supcon(x, y, temperature=0.1), losses.SupConLoss(0.1)
        ),
        "InfoNCE, 4096": labelled(
            8192, 2, lambda x, y: info_nce(*x.chunk(2), temperature=0.1), lambda x, y: one_way(x)
        ),
        "DCL, 4096": labelled(
            8192, 2, lambda x, y: dcl(*x.chunk(2), temperature=0.1), lambda x, y: decoupled(x)
        ),
        "multi-similarity, 4096": labelled(
            4096,
            4,
            lambda x, y: multi_similarity(x, y, alpha=2, beta=50, base=0.5),
            losses.MultiSimilarityLoss(2, 50, 0.5),
        ),
        "N-pairs, 4096": labelled(
            4096,
            2,
            lambda x, y: n_pairs(x, y, normalize=False, temperature=1, regularizer=0),
            losses.NPairsLoss(distance=dot),
        ),
        "batch-hard, 4096": labelled(
            4096, 4, batch_hard_loss, lambda x, y: margin(x, y, hard(x, y))
        ),
        "semi-hard, 1024": labelled(
            1024,
            4,
            lambda x, y: triplet_windows(
                x, y, distance=d, margin=0.2, semi_hard=True, active_only=True
            )[0],
            lambda x, y: margin(x, y, semi(x, y)),
        ),
        "semi-hard, 4096": {
            "ours": labelled(
                4096,
                4,
                lambda x, y: triplet_windows(
                    x, y, distance=d, margin=0.2, semi_hard=True, active_only=True
                )[0],
                lambda x, y: None,
            )["ours"]
        },
    }


def paired(sides: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, the order shuffled."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(rounds + 1):
        random.Random(turn).shuffle(order)
        for name in order:
            began = time.perf_counter()
            sides[name]()
            if turn:
                spent[name].append(time.perf_counter() - began)
    return spent


def peak_megabytes(row: str, side: str) -> float:
    """Of one call in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", f"{row}/{side}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def measure_memory(only: str) -> float:
    """How much more than before a call holds at most, in megabytes."""
    import torch

    row, side = only.rsplit("/", 1)
    work = rows()[row][side]()
    torch.ones(64, 64).requires_grad_().matmul(torch.ones(64, 64)).sum().backward()  # libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main(config: Config) -> None:
    """Print a row for each comparison."""
    import torch

    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    if config.only:
        print(measure_memory(config.only))
        return
    heads = ("ours ms", "peer ms", "ratio", "ours MB", "peer MB", "1/")
    print(" " * 37 + "".join(f"{head:>9s}" for head in heads))
    for row, sides in rows().items():
        if config.rows not in row:
            continue
        spent = paired({name: make() for name, make in sides.items()}, config.rounds)
        mine, *peer = spent.values()
        cells = [statistics.median(mine) * 1e3]
        if peer:
            ratio = statistics.median(b / a for a, b in zip(mine, peer[0], strict=True))
            cells += [statistics.median(peer[0]) * 1e3, ratio]
        line = (
            f"{row:37s}"
            + "".join(f"{c:9.1f}" for c in cells[:2])
            + "".join(f"{c:7.1f}" for c in cells[2:])
        )
        if config.memory:
            held = [peak_megabytes(row, side) for side in sides]
            line = f"{line:62s}" + "".join(f"{m:9.0f}" for m in held)
            if peer:
                line += f"{held[1] / max(held[0], 0.1):6.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    launch(main, Config)
