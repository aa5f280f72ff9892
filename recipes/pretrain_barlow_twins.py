"""Pretrain an image encoder with Barlow Twins (Zbontar et al. 2021) on unlabelled images.

    selfsup pretrain --method barlow-twins --data images/ --out runs/barlow_twins
    accelerate launch recipes/pretrain_barlow_twins.py --data images/ --out runs/barlow_twins

In the paper: ResNet-50, 1,000 epochs of 2,048 images, LARS at 0.2: 73.2 % on ImageNet with a linear
probe.
"""

from dataclasses import dataclass

from selfsup.config import LARS, BarlowTwinsConfig, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import BYOL
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with Barlow Twins."""

    views: ViewsConfig = BYOL
    method: BarlowTwinsConfig = BarlowTwinsConfig()
    optim: OptimConfig = LARS


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.barlow_twins import BarlowTwins
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = BarlowTwins(starting_encoder(config), config.method)
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
