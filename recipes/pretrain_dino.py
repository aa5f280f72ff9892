"""Pretrain an image encoder with DINO (Caron et al. 2021) on unlabelled images.

    selfsup pretrain --method dino --data images/ --out runs/dino
    accelerate launch recipes/pretrain_dino.py --data images/ --out runs/dino

In the paper: ViT-S/16, 800 epochs of 1,024 images, AdamW at 0.0005: 77.0 % on ImageNet with a
linear probe, 74.5 % with k-NN.
"""

from dataclasses import dataclass

from selfsup.config import DINOConfig, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import DINO
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with DINO."""

    views: ViewsConfig = DINO
    method: DINOConfig = DINOConfig()
    optim: OptimConfig = OptimConfig(
        name="adamw", lr=5e-4, weight_decay=0.04, final_decay=0.4, clip_each=3.0
    )


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.dino import DINO
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    run = Run(config)
    method = DINO(starting_encoder(config), config.method)
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
