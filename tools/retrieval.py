"""Retrieval figures of frozen features, leave-one-out, on a run folder or any timm model.

python tools/retrieval.py --model runs/triplet --data products/
"""

from selfsup.cli import run as launch
from selfsup.config import RetrievalConfig


def main(config: RetrievalConfig) -> None:
    """Embed, search, report."""
    from selfsup.errors import UserError
    from selfsup.evaluate.intervals import figure
    from selfsup.evaluate.results import report
    from selfsup.evaluate.retrieval import retrieval
    from selfsup.evaluate.subject import features_of, open_subject

    subject = open_subject(config)
    gallery = features_of(subject, config.data, config.split, config)
    try:
        found = retrieval(gallery.x, gallery.labels, distance=config.distance)
    except ValueError as error:
        raise UserError(f"{config.data}: {error}") from None
    values = {f"Recall@{k}": hit.float() for k, hit in found.recall.items()}
    values |= {"R-precision": found.r_precision, "MAP@R": found.map_at_r}
    figures = {
        name: figure(each, seed=config.seed, resamples=config.resamples)
        for name, each in values.items()
    }
    facts = {
        "distance": config.distance,
        "images": len(gallery.x),
        "queries": len(found.map_at_r),
        "left out": found.left_out,
        "unreadable": gallery.bad,
    }
    report("retrieval", subject, config, figures, facts)


def command() -> None:
    """Run from the command line."""
    launch(main, RetrievalConfig)


if __name__ == "__main__":
    command()
