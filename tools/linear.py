"""Linear-probe accuracy of frozen features, on a run folder or any timm model.

python tools/linear.py --model runs/simclr --data train/ --test test/
"""

from selfsup.cli import run as launch
from selfsup.config import LinearConfig


def main(config: LinearConfig) -> None:
    """Embed, fit, report."""
    from selfsup.errors import UserError
    from selfsup.evaluate.features import split_rows
    from selfsup.evaluate.intervals import figure
    from selfsup.evaluate.linear import linear_probe
    from selfsup.evaluate.results import report
    from selfsup.evaluate.subject import open_subject, train_and_test

    subject = open_subject(config)
    train, test = train_and_test(subject, config)
    x, y, protocol = train.x, train.labels, "test images"
    if test is None:
        kept, held = split_rows(y, share=0.2, seed=config.seed)
        test = train._replace(x=x[held], labels=y[held], bad=0)
        x, y, protocol = x[kept], y[kept], "a fifth of each class held out"
    try:
        probe = linear_probe(x, y, test.x, seed=config.seed)
    except ValueError as error:
        raise UserError(f"{config.data}: {error}") from None
    right = (probe.predictions == test.labels).float()
    accuracy = figure(right, seed=config.seed, resamples=config.resamples)
    facts = {
        "C": probe.strength,
        "converged": probe.converged,
        "train": len(x),
        "test": len(test.x),
        "protocol": protocol,
        "unreadable": train.bad + test.bad,
    }
    report("linear", subject, config, {"linear-probe accuracy": accuracy}, facts)


def command() -> None:
    """Run from the command line."""
    launch(main, LinearConfig)


if __name__ == "__main__":
    command()
