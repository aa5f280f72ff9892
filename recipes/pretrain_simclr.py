"""Pretrain an image encoder with SimCLR (Chen et al. 2020) on a folder of unlabelled images.

    accelerate launch recipes/pretrain_simclr.py --data images/ --out runs/simclr
    accelerate launch recipes/pretrain_simclr.py --config runs/simclr/config.yaml --out runs/b

The defaults suit a ResNet-18 and 96-pixel images on one GPU.
"""

from dataclasses import dataclass

from selfsup.cli import run as launch
from selfsup.config import PretrainConfig, ProbeConfig, SimCLRConfig, ViewsConfig


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder with SimCLR."""

    views: ViewsConfig = ViewsConfig(size=96, strength=0.5)
    method: SimCLRConfig = SimCLRConfig()
    probe: ProbeConfig = ProbeConfig()


def main(config: Config) -> None:
    """Train, look on the way if asked to, export."""
    from selfsup.encoder import build
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.methods.simclr import SimCLR
    from selfsup.pretrain import export, pretrain
    from selfsup.run import Run

    run = Run(config)
    method = SimCLR(build(config.encoder, config.views.size), config.method)
    probe = KNNProbe(config.probe, config.views) if config.probe.data else None

    # An ordinary loop: what you want done on the way goes in its body.
    for step in pretrain(run, method, config):
        if probe is not None and step % config.probe.every == 0:
            run.log(step, probe(method.encoder, run.accelerator.device))

    export(run, method.encoder, config.views)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
