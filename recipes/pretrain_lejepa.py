"""Pretrain an image encoder with LeJEPA (Balestriero & LeCun 2025) on unlabelled images.

    selfsup pretrain --method lejepa --data images/ --out runs/lejepa
    accelerate launch recipes/pretrain_lejepa.py --data images/ --out runs/lejepa

In the paper: ViT-H/14, 100 epochs, AdamW with a decay of 0.05 (0.0005 for ResNets): 79 % on
ImageNet with a linear probe.
"""

from dataclasses import dataclass

from selfsup.config import LeJEPAConfig, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import LEJEPA
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with LeJEPA."""

    views: ViewsConfig = LEJEPA
    method: LeJEPAConfig = LeJEPAConfig()
    optim: OptimConfig = OptimConfig(name="adamw", lr=0.0, weight_decay=5e-4)


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.lejepa import LeJEPA
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    encoder = starting_encoder(config)
    method = LeJEPA(encoder, config.method, large=config.views.views)
    probe = KNNProbe(run, config.probe, config.views)

    # An ordinary loop: add to its body what should happen between steps.
    for step in pretrain_steps(run, method, config):
        probe(step, method.exported)

    export(run, method, config.views)
    report_finished(run)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
