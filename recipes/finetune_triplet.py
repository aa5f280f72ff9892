"""Fine-tune an image encoder for retrieval with triplets, mined in the batch (semi-hard).

    selfsup finetune --data products/ --init runs/simclr --out runs/b --loss triplet
    accelerate launch recipes/finetune_triplet.py --data products/ --init runs/simclr --out runs/b

Labels are the names of sub-folders or a manifest's column. The embedding head is exported with the
encoder, so that every tool and timm load embeddings. Other miners (--method.miner): batch-hard
(Hermans et al. 2017), semi-hard-all, batch-all, random, easy-positive, hard-positive,
distance-weighted. Other losses (--method.loss): soft margin, angular hinge.
"""

from dataclasses import dataclass

from selfsup.config import FinetuneConfig, TripletConfig
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(FinetuneConfig):
    """Fine-tune an encoder for retrieval with triplets."""

    method: TripletConfig = TripletConfig()


def main(config: Config) -> None:
    """Train, validate on the way, export the best."""
    from selfsup.evaluate.teacher_features import with_teacher
    from selfsup.evaluate.validation import Validation, print_outcome
    from selfsup.methods.triplet_ranking import Triplet
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.finetune import finetune_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    ranking = Triplet(starting_encoder(config), config.method)
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
