"""Pretrain a vision transformer with DINOv2 (Oquab et al. 2023) on unlabelled images.

    selfsup pretrain --method dinov2 --data images/ --out runs/dinov2
    accelerate launch recipes/pretrain_dinov2.py --data images/ --out runs/dinov2

In the paper (table 1): ViT-L/14 on ImageNet-22k, AdamW at 0.004 for 1,024 images, batches of
3,072: 84.5 % on ImageNet with a linear probe, 82.0 % with k-NN.
"""

from dataclasses import dataclass

from selfsup.config import DINOv2Config, EncoderConfig, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import DINOV2
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain a vision transformer with DINOv2."""

    views: ViewsConfig = DINOV2
    method: DINOv2Config = DINOv2Config()
    optim: OptimConfig = OptimConfig(
        name="adamw", lr=2e-3, weight_decay=0.04, final_decay=0.4, clip=3.0, warmup=0.1
    )


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.dinov2 import DINOv2
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config, encoder=EncoderConfig(name="vit_tiny_patch16_224"))
    run = Run(config)
    method = DINOv2(starting_encoder(config), config.method)
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
