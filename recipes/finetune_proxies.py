"""Fine-tune an image encoder for retrieval with proxies: one learnt vector for each class.

    selfsup finetune --data products/ --init runs/simclr --out runs/b --loss arcface
    accelerate launch recipes/finetune_proxies.py --data products/ --init runs/simclr --out runs/b \
        --method.loss arcface

Losses: proxy-anchor, arcface, cosface. recipes/README.md has the results of each. The proxies have
their own learning rate (--method.lr); they are saved in checkpoints and not exported.
"""

from dataclasses import dataclass

from selfsup.config import FinetuneConfig, ProxiesConfig
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(FinetuneConfig):
    """Fine-tune an encoder for retrieval with proxies."""

    method: ProxiesConfig = ProxiesConfig()


def main(config: Config) -> None:
    """Train, validate on the way, export the best."""
    from selfsup.evaluate.teacher_features import with_teacher
    from selfsup.evaluate.validation import Validation, print_outcome
    from selfsup.methods.proxy_ranking import ProxyRanking
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.finetune import finetune_steps, labelled
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    classes = len(labelled(config).trained.classes)
    ranking = ProxyRanking(starting_encoder(config), config.method, classes=classes)
    method = with_teacher(run, config, ranking)
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
