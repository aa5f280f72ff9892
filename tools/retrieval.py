"""Retrieval figures of frozen features: a run folder, a timm model, others' checkpoints.

python tools/retrieval.py --model runs/triplet --data products/
python tools/retrieval.py --model runs/reid --data reid.csv --split gallery --queries-split query \
    --camera camera --rerank
"""

from selfsup.config import RetrievalConfig
from selfsup.core.cli import run as launch


def main(config: RetrievalConfig) -> None:
    """Evaluate, print the table, write the record."""
    from selfsup.evaluate.run import retrieval

    evaluation = retrieval(config)
    evaluation.print()
    if file := evaluation.save():
        print(f"written to {file}")


def command() -> None:
    """Run from the command line."""
    launch(main, RetrievalConfig)


if __name__ == "__main__":
    command()
