"""Linear-probe accuracy of frozen features: a run folder, a timm model, others' checkpoints.

python tools/linear.py --model runs/simclr --data train/ --test test/ --shares 0.01 0.1 1
"""

from typing import TYPE_CHECKING, Any

from selfsup.config import LinearConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from selfsup.evaluate.features import Features
    from selfsup.evaluate.model import Subject
    from selfsup.evaluate.results import Measured


def main(config: LinearConfig) -> None:
    """Embed, fit, report."""
    from selfsup.core.errors import require
    from selfsup.evaluate.leaks import KnownImages
    from selfsup.evaluate.model import train_and_test
    from selfsup.evaluate.results import judge

    require(
        all(0 < share <= 1 for share in config.shares), "--shares must be above 0 and at most 1"
    )
    require(config.epochs > 0, f"--epochs must be above 0, not {config.epochs}")
    known = KnownImages(config, config.test, config.test_split)

    def look(subject: "Subject") -> "tuple[Features, Features | None]":
        known.of(subject)
        return train_and_test(subject, config, config.test, config.test_split)

    judge("linear", config, look, lambda seen: measure(*seen, config, known))


def measure(
    train: "Features", test: "Features | None", config: LinearConfig, known: Any
) -> "Measured":
    """Accuracy with each share of the training labels."""
    from selfsup.core.progress import bar
    from selfsup.evaluate.features import split_rows
    from selfsup.evaluate.linear_probe import STRENGTHS, linear_probe
    from selfsup.evaluate.results import Measured, right
    from selfsup.evaluate.sgd_probe import sweep

    x, y, protocol, bad = train.x, train.labels, "test images", train.bad
    if test is None:
        kept, held = split_rows(y, share=0.2, seed=config.seed)
        test = train._replace(x=x[held], labels=y[held], positions=train.positions[held], bad=0)
        x, y, protocol = x[kept], y[kept], "a fifth of each class held out"
    logistic = config.solver == "logistic"
    values, facts = {}, {"protocol": protocol, "unreadable": bad + test.bad}
    for share in config.shares:
        rows = split_rows(y, share=share, seed=config.seed)[1] if share < 1 else slice(None)
        fits = len(STRENGTHS) + 1 if logistic else config.epochs
        with bar(f"{share:.0%} of labels", fits, shown=True) as advance:
            if logistic:
                probe = linear_probe(x[rows], y[rows], test.x, seed=config.seed, progress=advance)
            else:
                probe = sweep(
                    x[rows],
                    y[rows],
                    test.x,
                    seed=config.seed,
                    epochs=config.epochs,
                    progress=advance,
                )
        name = "linear probe" if share == 1 else f"linear probe, {share:.0%} of labels"
        values[name] = right(probe.predictions, test.labels)
        setting = f"{'C' if logistic else 'rate'} {probe.setting:.3g}"
        facts[name] = f"{len(x[rows])} images, {setting}"
        facts["converged"] = facts.get("converged", True) and probe.converged
    clean, leaked = known.clean(test)
    return Measured(values, facts | {"test": len(test.x)} | leaked, clean=clean)


def command() -> None:
    """Run from the command line."""
    launch(main, LinearConfig)


if __name__ == "__main__":
    command()
