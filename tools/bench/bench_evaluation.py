"""Time of evaluation compared with lightly, faiss, pytorch-metric-learning and scikit-learn.

    pip install -e '.[bench]' && python tools/bench/bench_evaluation.py

Two threads, all sides of a row in one process in shuffled rounds; a ratio is the median of the
rounds' ratios. The results of the sides are compared first: it is the same work.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import Work, machine, paired, ratio

from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

CLASSES, K = 100, 200
PEERS = ("lightly", "faiss", "pml", "sklearn", "heads", "runs")
Sides = dict[str, Work]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time of evaluation compared with its peers'."""

    rows: str = ""
    """Only rows whose name holds this text."""
    rounds: int = 7
    """Rounds of each row, after one that is not counted."""
    threads: int = 2
    """Threads of every side."""
    only: str = ""
    """For the tool's own use: hold a bank of so many rows and print the memory of a search."""


def blobs(n: int, q: int, d: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Unit rows around a hundred centres: bank [n, d], its labels, and queries [q, d]."""
    import torch
    from torch.nn.functional import normalize

    g = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, d, generator=g)
    labels, asked = (torch.randint(CLASSES, (size,), generator=g) for size in (n, q))
    bank, queries = (
        normalize(centres[y] + 2 * torch.randn(len(y), d, generator=g)) for y in (labels, asked)
    )
    return bank, labels, queries


def knn(n: int, q: int, d: int) -> Sides:
    """Weighted k-NN."""
    import faiss
    import torch
    from lightly.utils.benchmarking.knn import knn_predict as by_lightly

    from selfsup.evaluate.votes import Vote, knn_votes

    bank, labels, queries = blobs(n, q, d)
    vote = [Vote(K, 0.1)]
    turned = bank.T.contiguous()
    index = faiss.IndexFlatIP(d)
    index.add(bank.numpy())

    def lightly() -> Any:
        parts = queries.split(256)
        return torch.cat([by_lightly(x, turned, labels, CLASSES, K, 0.1)[:, 0] for x in parts])

    def by_faiss() -> Any:
        near, which = (torch.from_numpy(x) for x in index.search(queries.numpy(), K))
        votes = torch.zeros(len(near), CLASSES)
        return votes.scatter_add_(1, labels[which], (near / 0.1).exp()).argmax(1)

    def ours() -> Any:
        return knn_votes(bank, labels, queries, votes=vote)[0]

    sides: Sides = {"ours": ours, "lightly": lightly, "faiss": by_faiss}
    predictions = {name: side() for name, side in sides.items()}
    for name in ("faiss", "lightly"):
        differing = (predictions[name] != predictions["ours"]).float().mean()
        assert float(differing) < 1e-3, name
    return sides


def retrieval(n: int, d: int) -> Sides:
    """Recall@1, R-precision and MAP@R among n rows of classes of ten."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    from selfsup.evaluate.retrieval_figures import retrieval as search
    from selfsup.search.gallery import Queries

    g = torch.Generator().manual_seed(0)
    labels = torch.randperm(n, generator=g) // 10
    x = torch.randn(n // 10, d, generator=g)[labels] + 2.5 * torch.randn(n, d, generator=g)
    x = torch.nn.functional.normalize(x)
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    peer = AccuracyCalculator(include=names, device=torch.device("cpu"), k="max_bin_count")

    def ours() -> Any:
        return search(Queries(x, labels)).figures

    def pml() -> Any:
        return peer.get_accuracy(x, labels)

    theirs, figures = pml(), ours()
    means = [figures[name].mean().item() for name in ("Recall@1", "R-precision", "MAP@R")]
    difference = max(abs(a - theirs[b]) for a, b in zip(means, names, strict=True))
    print(f"  differs from pytorch-metric-learning by at most {difference:.1e}")
    assert difference < 1e-6
    return {"ours": ours, "pml": pml}


def probe(n: int, d: int, *, ill: bool) -> Sides:
    """Logistic regression to scikit-learn's objective, C = 1 on standardised features."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from selfsup.evaluate.logistic import Problem

    g = torch.Generator().manual_seed(0)
    classes = torch.randint(10, (n,), generator=g)
    x = torch.randn(n, d, generator=g) + 0.12 * torch.randn(10, d, generator=g)[classes]
    if ill:
        x = x * torch.logspace(0, -2.5, d)
        x = x @ torch.linalg.qr(torch.randn(d, d, generator=g)).Q
    x = ((x - x.mean(0)) / x.std(0)).contiguous()
    features, y = x.numpy(), classes.numpy()

    def ours() -> Any:
        return Problem(x, classes, 10).fit(1.0)

    def sklearn() -> Any:
        return LogisticRegression(C=1.0, max_iter=5000).fit(features, y)

    fit, theirs = ours(), sklearn()
    weight, bias = torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_)
    loss = torch.nn.functional.cross_entropy(x.double() @ weight.T + bias, classes)
    value = float(loss + weight.square().sum() / (2 * n))
    right = float((fit.predict(x) == classes).double().mean()), theirs.score(features, y)
    print(f"  objective {fit.objective:.6f} of ours, {value:.6f} of theirs")
    print(f"  accuracy {right[0]:.4f} of ours, {right[1]:.4f} of theirs")
    return {"ours": ours, "sklearn": sklearn}


def sweep(n: int, d: int, c: int) -> Sides:
    """One epoch of ten learning rates: at once, as ten heads on one loader, as ten runs."""
    import torch
    from torch import nn

    from selfsup.evaluate.sgd_probe import Heads

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=g), torch.randint(c, (n,), generator=g)
    rates = torch.logspace(-4, -1, 10)

    def ours() -> None:
        heads = Heads(d, c, rates)
        for rows in torch.randperm(n, generator=g).split(1024):
            heads.step(x[rows], y[rows], 1.0)

    def separate(own: "Tensor") -> None:
        heads = [nn.Linear(d, c) for _ in own]
        groups = [
            {"params": head.parameters(), "lr": float(rate)}
            for head, rate in zip(heads, own, strict=True)
        ]
        moved = torch.optim.SGD(groups, momentum=0.9)
        data = torch.utils.data.TensorDataset(x, y)
        for images, labels in torch.utils.data.DataLoader(data, batch_size=1024, shuffle=True):
            moved.zero_grad()
            losses = [nn.functional.cross_entropy(head(images), labels) for head in heads]
            torch.stack(losses).sum().backward()
            moved.step()

    def runs() -> None:
        for rate in rates:
            separate(rate[None])

    return {"ours": ours, "heads": partial(separate, rates), "runs": runs}


ROWS: dict[str, tuple[Callable[[], Sides], float]] = {
    "k-NN, 50,000 x 10,000, d = 128": (partial(knn, 50_000, 10_000, 128), 10_000),
    "k-NN, 50,000 x 10,000, d = 512": (partial(knn, 50_000, 10_000, 512), 10_000),
    "k-NN, 1,280,000 x 10,000, d = 128": (partial(knn, 1_280_000, 10_000, 128), 10_000),
    "retrieval, 20,000 x 128": (partial(retrieval, 20_000, 128), 20_000),
    "logistic, 50,000 x 512, easy": (partial(probe, 50_000, 512, ill=False), 1),
    "logistic, 50,000 x 512, ill-conditioned": (partial(probe, 50_000, 512, ill=True), 1),
    "ten rates, 50,000 x 512, 10 classes": (partial(sweep, 50_000, 512, 10), 1),
    "ten rates, 50,000 x 512, 100 classes": (partial(sweep, 50_000, 512, 100), 1),
}
"""By name: the sides, and how many queries a run of one is."""


def main(config: Config) -> None:
    """A row at a time: microseconds a query, or milliseconds, and ratios."""
    import torch

    torch.set_num_threads(config.threads)
    if config.only:
        print(held(int(config.only)))
        return
    import faiss

    faiss.omp_set_num_threads(config.threads)
    print(f"{machine()}, {config.threads} threads, faiss {faiss.__version__}")
    for name, (make, queries) in ROWS.items():
        if config.rows not in name:
            continue
        print(name)
        spent = paired(make(), config.rounds)
        unit = ("us a query", 1e6) if queries > 1 else ("ms", 1e3)
        each = {side: statistics.median(s) / queries * unit[1] for side, s in spent.items()}
        print("  " + ", ".join(f"{side} {value:.0f}" for side, value in each.items()), unit[0])
        peers = [side for side in spent if side in PEERS]
        for side in spent:
            if side not in peers:
                ratios = [f"{ratio(spent[side], spent[peer])} x {peer}" for peer in peers]
                print(f"    {side}: {', '.join(ratios)}")
    if config.rows in "memory of k-NN, 1,280,000":
        done = subprocess.run(
            [sys.executable, __file__, "--only", "1280000"],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"memory of k-NN, 1,280,000 x 2,048, --memory 512MB: {done.stdout.strip()}")


def held(n: int) -> str:
    """The most memory of a process that makes a bank, normalises it and searches it."""
    import torch

    from selfsup.evaluate.votes import Vote, knn_votes

    bank = torch.randn(n, 128)
    labels = torch.randint(CLASSES, (n,))
    knn_votes(bank, labels, torch.randn(2048, 128), votes=[Vote(K, 0.1)], memory=512 << 20)
    # not getrusage, whose figure a process has from the one that started it
    status = Path("/proc/self/status").read_text()
    most = int(status.split("VmHWM:")[1].split()[0]) >> 10
    return f"{most} MB at most, {bank.nbytes >> 20} MB of them the bank"


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
