"""Pretrain an image encoder with MoCo v3 (Chen et al. 2021) on unlabelled images.

    selfsup pretrain --method moco-v3 --data images/ --out runs/moco_v3
    accelerate launch recipes/pretrain_moco_v3.py --data images/ --out runs/moco_v3

In the paper: ResNet-50, 300 epochs of 4,096 images, LARS at 0.3: 72.8 % on ImageNet with a linear
probe. For a ViT use --method.temperature 0.2 and --optim.name adamw.
"""

from dataclasses import dataclass

from selfsup.config import LARS, MoCoV3Config, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import MOCO_V3
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with MoCo v3."""

    views: ViewsConfig = MOCO_V3
    method: MoCoV3Config = MoCoV3Config()
    optim: OptimConfig = LARS


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.moco import MoCoV3
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = MoCoV3(starting_encoder(config), config.method)
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
