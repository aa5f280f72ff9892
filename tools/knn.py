"""Weighted k-NN accuracy of frozen features, on a run folder or any timm model.

python tools/knn.py --model runs/simclr --data products/
python tools/knn.py --model resnet18 --data all.csv --split train --test-split test
"""

from selfsup.cli import run as launch
from selfsup.config import KNNConfig


def main(config: KNNConfig) -> None:
    """Embed, vote, report."""
    from selfsup.errors import UserError
    from selfsup.evaluate.intervals import figure
    from selfsup.evaluate.knn import knn_predict
    from selfsup.evaluate.results import report
    from selfsup.evaluate.subject import open_subject, train_and_test

    subject = open_subject(config)
    bank, test = train_and_test(subject, config)
    queries = bank if test is None else test
    others = None if test is None else test.x
    if len(bank.x) < 2:
        raise UserError(f"{config.data} holds {len(bank.x)} image; neighbours need 2 or more")
    found = knn_predict(bank.x, bank.labels, others, k=config.k, temperature=config.temperature)
    right = (found == queries.labels).float()
    accuracy = figure(right, seed=config.seed, resamples=config.resamples)
    facts = {
        "k": min(config.k, len(bank.x) - (test is None)),
        "temperature": config.temperature,
        "bank": len(bank.x),
        "queries": len(queries.x),
        "protocol": "leave one out" if test is None else "test images",
        "unreadable": bank.bad + (0 if test is None else test.bad),
    }
    report("knn", subject, config, {"k-NN accuracy": accuracy}, facts)


def command() -> None:
    """Run from the command line."""
    launch(main, KNNConfig)


if __name__ == "__main__":
    command()
