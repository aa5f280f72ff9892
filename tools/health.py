"""What embeddings show without labels: spread, rank, hubs; and clusters if there are labels.

python tools/health.py --model runs/simclr --data images/
"""

from typing import TYPE_CHECKING, Any

from selfsup.config import HealthConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.evaluate.features import Features
    from selfsup.evaluate.model import Subject
    from selfsup.evaluate.results import Measured


def main(config: HealthConfig) -> None:
    """Embed, look, report."""
    from selfsup.core.errors import require
    from selfsup.data.subset import random_subset
    from selfsup.evaluate.features import extract_views
    from selfsup.evaluate.model import embed, source_of
    from selfsup.evaluate.results import judge

    require(config.most > 1, f"--most must be above 1, not {config.most}")

    def look(subject: "Subject") -> "tuple[Features, Tensor | None]":
        whole = source_of(subject, config.data, config.split, config)
        source = random_subset(whole, config.most, seed=config.seed)
        found = embed(subject, source, config)
        require(len(found.x) > 1, f"{config.data} holds 1 image; this needs 2 and more")
        views = None
        if config.views > 1 and subject.views.channels == 3:
            views = extract_views(
                subject.encoder,
                source,
                subject.views,
                positions=found.positions[:1000].tolist(),
                views_each=config.views,
                seed=config.seed,
            )
        return found, views

    judge("health", config, look, lambda seen: measure(*seen, config))
    explain()


def measure(features: "Features", views: "Tensor | None", config: HealthConfig) -> "Measured":
    """Every sign; with labels also the agreement of clusters with them."""
    from selfsup.evaluate.results import Measured
    from selfsup.evaluate.signs_of_health import clustering, health, health_of_views

    numbers = health(features.x)
    facts: dict[str, Any] = {"images": len(features.x), "width": features.x.shape[1]}
    if views is not None:
        numbers |= health_of_views(views)
        facts["images with views"] = len(views)
    labelled = bool((features.labels >= 0).all()) and len(features.labels.unique()) > 1
    if labelled:
        agreement = clustering(features.x, features.labels, seed=config.seed)
        numbers |= {"NMI of k-means": agreement.nmi, "AMI of k-means": agreement.ami}
        facts["clusters"] = len(features.labels.unique())
    return Measured({}, facts | {"unreadable": features.bad}, numbers)


def explain() -> None:
    """What each sign says, once."""
    from selfsup.core.distributed import is_main
    from selfsup.evaluate.signs_of_health import SAYS

    if is_main():
        for name, words in SAYS.items():
            print(f"  {name}: {words}")


def command() -> None:
    """Run from the command line."""
    launch(main, HealthConfig)


if __name__ == "__main__":
    command()
