"""Pretrain an image encoder with SwAV (Caron et al. 2020) on unlabelled images.

    selfsup pretrain --method swav --data images/ --out runs/swav
    accelerate launch recipes/pretrain_swav.py --data images/ --out runs/swav

In the paper: ResNet-50, 800 epochs of 4,096 images, LARS at 0.3: 75.3 % on ImageNet with a linear
probe.
"""

from dataclasses import dataclass

from selfsup.config import LARS, OptimConfig, PretrainConfig, SwAVConfig, ViewsConfig
from selfsup.config.pipelines import SWAV
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with SwAV."""

    views: ViewsConfig = SWAV
    method: SwAVConfig = SwAVConfig()
    optim: OptimConfig = LARS


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.swav import SwAV
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = SwAV(starting_encoder(config), config.method)
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
