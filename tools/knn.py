"""Weighted k-NN accuracy of frozen features: a run folder, a timm model, others' checkpoints.

python tools/knn.py --model runs/simclr --data products/
python tools/knn.py --model resnet18 --data all.csv --split train --test-split test --protocol dino
"""

from selfsup.config import KNNConfig
from selfsup.core.cli import run as launch


def main(config: KNNConfig) -> None:
    """Evaluate, print the table, write the record."""
    from selfsup.evaluate.run import knn

    evaluation = knn(config)
    evaluation.print()
    if file := evaluation.save():
        print(f"written to {file}")


def command() -> None:
    """Run from the command line."""
    launch(main, KNNConfig)


if __name__ == "__main__":
    command()
