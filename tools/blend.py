"""Mix the weights of two encoders: what fine-tuning learnt, without what it forgot.

python tools/blend.py --model timm:resnet18 --other runs/tuned --on mine/ general.npz --out mix
"""

from selfsup.config import BlendConfig
from selfsup.core.cli import run as launch


def main(config: BlendConfig) -> None:
    """Measure the mixes, print the curve, export the best."""
    from selfsup.evaluate.blend import blend

    print(blend(config).table())


def command() -> None:
    """Run from the command line."""
    launch(main, BlendConfig)


if __name__ == "__main__":
    command()
