"""Pretrain a vision transformer as a masked autoencoder (He et al. 2022) on unlabelled images.

    selfsup pretrain --method mae --data images/ --out runs/mae
    accelerate launch recipes/pretrain_mae.py --data images/ --out runs/mae

In the paper: ViT-L/16, 1,600 epochs of 4,096 images, AdamW at 0.00015 for 256 images, scaled
linearly: 85.9 % on ImageNet after fine-tuning, 75.8 % with a linear probe.
"""

from dataclasses import dataclass

from selfsup.config import EncoderConfig, MAEConfig, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import MAE
from selfsup.core.cli import run as launch

VIT = EncoderConfig(
    name="vit_tiny_patch16_224", args="{global_pool: avg, fc_norm: false}"
)  # its features are the mean of the patches: the class token has no loss of its own


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain a vision transformer as a masked autoencoder."""

    views: ViewsConfig = MAE
    method: MAEConfig = MAEConfig()
    optim: OptimConfig = OptimConfig(name="adamw", lr=1.5e-4, rule="linear", weight_decay=0.05)


def main(config: Config) -> None:
    """Train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.mae import MAE
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config, encoder=VIT)
    run = Run(config)
    method = MAE(starting_encoder(config), config.method)
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
