"""Settings of `selfsup adapt`."""

from dataclasses import dataclass

from selfsup.config import presets
from selfsup.config.finetuning import TripletConfig
from selfsup.config.run import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(FinetuneConfig):
    """Adapt published weights to your labelled images, and say whether it helped."""

    FIRST = (
        *("data", "init", "out", "preset", "test", "remember", "views.size", "epochs", "steps"),
        *("optim.lr", "optim.layer_decay", "lora", "seed"),
    )
    LENGTHS = presets.ADAPT
    epochs: int | None = None
    """Number of times that training uses every image; by default by the preset and the number of
    images: 20, more of few images and fewer of very many."""
    method: TripletConfig = TripletConfig(dim=0)
    test: str = ""
    """Labelled images for the verdict; empty: a tenth of the classes of --data, which nothing else
    sees, or a fifth of the images of each class where there are fewer than 80 classes."""
    remember: str = ""
    """Other labelled images, on which the published weights are good and should stay so: they take
    part in the choice of the mix, and the verdict says what they lost."""
    resamples: int = 1000
    """Number of bootstrap samples for each 95 % interval."""
