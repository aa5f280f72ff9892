"""Pretrain an image encoder with SupCon (Khosla et al. 2020) on labelled images.

    selfsup pretrain --method supcon --data images/ --out runs/supcon
    accelerate launch recipes/pretrain_supcon.py --data images/ --out runs/supcon

Labels are the names of sub-folders or a manifest's column. In the paper: ResNet-50, 700 epochs of
6,144 images: 78.7 % on ImageNet with a linear probe.
"""

from dataclasses import dataclass

from selfsup.config import PretrainConfig, SupConConfig, ViewsConfig
from selfsup.config.pipelines import SIMCLR
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with SupCon."""

    views: ViewsConfig = SIMCLR
    method: SupConConfig = SupConConfig()


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.supcon import SupCon
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = SupCon(starting_encoder(config), config.method)
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
