"""What embeddings show without labels: spread, rank, hubs; and clusters if there are labels.

python tools/health.py --model runs/simclr --data images/
"""

from selfsup.config import HealthConfig
from selfsup.core.cli import run as launch


def main(config: HealthConfig) -> None:
    """Evaluate, print the table, write the record."""
    from selfsup.evaluate.run import health

    evaluation = health(config)
    evaluation.print()
    if file := evaluation.save():
        print(f"written to {file}")


def command() -> None:
    """Run from the command line."""
    launch(main, HealthConfig)


if __name__ == "__main__":
    command()
