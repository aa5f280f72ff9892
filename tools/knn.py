"""Weighted k-NN accuracy of frozen features: a run folder, a timm model, others' checkpoints.

python tools/knn.py --model runs/simclr --data products/
python tools/knn.py --model resnet18 --data all.csv --split train --test-split test --protocol dino
"""

from typing import TYPE_CHECKING, Any

from selfsup.config import KNNConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.evaluate.features import Features
    from selfsup.evaluate.model import Subject
    from selfsup.evaluate.results import Measured
    from selfsup.evaluate.votes import Vote

TRUTH = 256  # queries that the recall of int8 is taken from


def main(config: KNNConfig) -> None:
    """Embed, vote, report."""
    from selfsup.core.errors import UserError, require
    from selfsup.evaluate.leaks import KnownImages
    from selfsup.evaluate.model import train_and_test
    from selfsup.evaluate.results import judge

    require(bool(config.k) and bool(config.temperature), "give a --k and a --temperature")
    require(min((*config.k, *config.shots, config.draws)) > 0, "--k, --shots and --draws: above 0")
    require(min(config.temperature) > 0, "--temperature must be above 0")
    require(
        not config.shots or bool(config.test or config.test_split),
        "--shots takes labelled images from --data and asks about others: give --test",
    )
    known = KnownImages(config, config.test, config.test_split)

    def look(subject: "Subject") -> "tuple[Features, Features | None]":
        known.of(subject)
        bank, test = train_and_test(subject, config, config.test, config.test_split)
        if len(bank.x) < 2:
            raise UserError(f"{config.data} holds {len(bank.x)} image; neighbours need 2 or more")
        return bank, test

    judge("knn", config, look, lambda seen: measure(*seen, config, known))


def measure(bank: "Features", test: "Features | None", config: KNNConfig, known: Any) -> "Measured":
    """Accuracy of each vote, and with a few images of each class."""
    from selfsup.evaluate.results import Measured, right
    from selfsup.evaluate.votes import few_shot, knn_votes
    from selfsup.search.products import bytes_of

    votes, memory = votes_of(config), bytes_of(config.memory)
    queries = bank if test is None else test
    others = None if test is None else test.x
    found = knn_votes(
        bank.x, bank.labels, others, votes=votes, precision=config.precision, memory=memory
    )
    accuracy = [right(one, queries.labels) for one in found]
    values = {f"k-NN, {vote}": each for vote, each in zip(votes, accuracy, strict=True)}
    facts: dict[str, Any] = {"bank": len(bank.x), "queries": len(queries.x)}
    facts["protocol"] = "leave one out" if test is None else "test images"
    facts["unreadable"] = bank.bad + (0 if test is None else test.bad)
    if test is not None and len(votes) > 1:
        inside = knn_votes(bank.x, bank.labels, votes=votes, memory=memory)
        best = max(range(len(votes)), key=lambda i: float(right(inside[i], bank.labels).mean()))
        values["k-NN, chosen in train"] = accuracy[best]
        facts["chosen in train"] = str(votes[best])
    if config.precision == "int8":
        facts["recall of the true k"] = recall(bank.x, queries.x, votes, alone=test is None)
    for shots in config.shots:
        assert test is not None
        drawn = few_shot(
            bank.x,
            bank.labels,
            test.x,
            shots=shots,
            draws=config.draws,
            vote=votes[0],
            seed=config.seed,
        )
        each = right(drawn, test.labels)
        values[f"k-NN, {shots} of each class"] = each.mean(0)
        spread = float(each.mean(1).std()) if config.draws > 1 else 0.0
        facts[f"deviation of {config.draws} draws of {shots}"] = round(spread, 4)
    clean, leaked = known.clean(queries)
    return Measured(values, facts | leaked, clean=clean)


def votes_of(config: KNNConfig) -> "list[Vote]":
    """Every k with every temperature, or the protocol's."""
    from selfsup.evaluate.votes import PROTOCOLS, Vote

    if config.protocol:
        return PROTOCOLS[config.protocol]
    return [Vote(k, t) for t in config.temperature for k in config.k]


def recall(bank: "Tensor", queries: "Tensor", votes: "list[Vote]", *, alone: bool) -> float:
    """Share of the true neighbours of some queries that int8 finds."""
    import torch

    from selfsup.search.neighbours import nearest
    from selfsup.search.products import comparable

    some = queries[:TRUTH]
    x, z = comparable(some, bank, "cosine")
    k = max(vote.k for vote in votes)
    true = torch.cat([part.places for part in nearest(x, z, k, alone=alone)])
    quick = nearest(x, z, k, alone=alone, precision="int8")
    found = torch.cat([part.places for part in quick])
    hits = (true[:, :, None] == found[:, None, :]).any(2)
    return round(float(hits.double().mean()), 6)


def command() -> None:
    """Run from the command line."""
    launch(main, KNNConfig)


if __name__ == "__main__":
    command()
