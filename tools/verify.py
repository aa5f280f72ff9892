"""Are two images of the same thing: error rates, and the threshold to use.

python tools/verify.py --model runs/triplet --data products/
python tools/verify.py --model runs/triplet --data faces/ --pairs pairs.csv --keep 0.001
"""

from selfsup.config import VerifyConfig
from selfsup.core.cli import run as launch


def main(config: VerifyConfig) -> None:
    """Evaluate, print the table, write the record."""
    from selfsup.evaluate.run import verify

    evaluation = verify(config)
    evaluation.print()
    if file := evaluation.save():
        print(f"written to {file}")


def command() -> None:
    """Run from the command line."""
    launch(main, VerifyConfig)


if __name__ == "__main__":
    command()
