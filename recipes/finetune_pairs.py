"""Fine-tune an image encoder for retrieval with a loss of pairs: each anchor with all others.

    selfsup finetune --data products/ --init runs/simclr --out runs/b \
        --loss multi-similarity --miner multi-similarity
    accelerate launch recipes/finetune_pairs.py --data products/ --init runs/simclr --out runs/b \
        --method.loss multi-similarity --method.miner multi-similarity

Losses: contrastive, lifted, generalized-lifted, multi-similarity, supcon, nt-xent (with labels),
circle, n-pairs, angular, n-pairs-angular. recipes/README.md has the results of each.
"""

from dataclasses import dataclass

from selfsup.config import FinetuneConfig, PairsConfig
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(FinetuneConfig):
    """Fine-tune an encoder for retrieval with a loss of pairs."""

    method: PairsConfig = PairsConfig()


def main(config: Config) -> None:
    """Train, validate on the way, export the best."""
    from selfsup.evaluate.teacher_features import with_teacher
    from selfsup.evaluate.validation import Validation, print_outcome
    from selfsup.methods.pair_ranking import PairRanking
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.finetune import finetune_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    ranking = PairRanking(starting_encoder(config), config.method)
    method = with_teacher(run, config, ranking)
    if config.method.loss in ("n-pairs", "n-pairs-angular") and config.images > 2:
        run.print_line(f"{config.method.loss} uses 2 images of each class: try --images 2")
    validation = Validation(run, config)

    # An ordinary loop: add to its body what should happen between steps.
    for step in finetune_steps(run, method, config):
        if validation(step, method.exported):
            break

    outcome = validation.export(method)
    report_finished(run)
    print_outcome(run, outcome)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
