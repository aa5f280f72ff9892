"""Pretrain an image encoder with DCL (Yeh et al. 2022) on unlabelled images.

    selfsup pretrain --method dcl --data images/ --out runs/dcl
    accelerate launch recipes/pretrain_dcl.py --data images/ --out runs/dcl

SimCLR without the positive in the denominator, for small batches. In the paper: ResNet-50, 200
epochs of 256 images: 68.2 % on ImageNet with a linear probe.
"""

from dataclasses import dataclass

from selfsup.config import DCLConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import SIMCLR
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with DCL."""

    views: ViewsConfig = SIMCLR
    method: DCLConfig = DCLConfig()


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.simclr import SimCLR
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = SimCLR(starting_encoder(config), config.method)
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
