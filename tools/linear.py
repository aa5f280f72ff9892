"""Linear-probe accuracy of frozen features: a run folder, a timm model, others' checkpoints.

python tools/linear.py --model runs/simclr --data train/ --test test/ --shares 0.01 0.1 1
"""

from selfsup.config import LinearConfig
from selfsup.core.cli import run as launch


def main(config: LinearConfig) -> None:
    """Evaluate, print the table, write the record."""
    from selfsup.evaluate.run import linear

    evaluation = linear(config)
    evaluation.print()
    if file := evaluation.save():
        print(f"written to {file}")


def command() -> None:
    """Run from the command line."""
    launch(main, LinearConfig)


if __name__ == "__main__":
    command()
