"""Pretrain an image encoder with SimSiam (Chen & He 2021) on unlabelled images.

    selfsup pretrain --method simsiam --data images/ --out runs/simsiam
    accelerate launch recipes/pretrain_simsiam.py --data images/ --out runs/simsiam

In the paper: ResNet-50, 100 epochs of 256 images, SGD at 0.05: 68.1 % on ImageNet with a linear
probe. The rate here is ten times that: runs of a few thousand steps learn more (recipes/README.md).
"""

from dataclasses import dataclass

from selfsup.config import OptimConfig, PretrainConfig, SimSiamConfig, ViewsConfig
from selfsup.config.pipelines import MOCO
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with SimSiam."""

    views: ViewsConfig = MOCO
    method: SimSiamConfig = SimSiamConfig()
    optim: OptimConfig = OptimConfig(lr=0.5)


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.simsiam import SimSiam
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = SimSiam(starting_encoder(config), config.method)
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
