"""k-NN accuracy during training: each labelled image classified by all the others."""

from selfsup.config import ProbeConfig, ViewsConfig
from selfsup.core.distributed import gather_objects, local_slice, world
from selfsup.core.errors import require
from selfsup.core.progress import bar
from selfsup.data.open import open_source
from selfsup.data.subset import labelled_images
from selfsup.encoders.encoder import Encoder
from selfsup.evaluate.features import extract
from selfsup.evaluate.votes import knn_predict
from selfsup.training.run import Run


class KNNProbe:
    """Logs {"knn": accuracy}. Do not choose a checkpoint by the images of a final test."""

    def __init__(self, run: Run, config: ProbeConfig, views: ViewsConfig) -> None:
        """Open the labelled images of `config.data`; without any, calls do nothing.

        Raises:
            UserError: they have no labels, or the interval is no number of steps.
        """
        require(config.every > 0, f"--probe.every must be above 0, not {config.every}")
        require(config.k > 0, f"--probe.k must be above 0, not {config.k}")
        self.run = run
        self.source = None
        if config.data:
            cache = run.config.cache
            opened = open_source(
                config.data, labels=config.labels, channels=views.channels, cache=cache
            )
            flag = f"--probe.data {config.data}"
            self.source = run.others[flag] = labelled_images(opened, flag)
        self.config = config
        self.views = views

    def __call__(self, step: int, encoder: Encoder) -> float | None:
        """Log and return leave-one-out accuracy every `config.every` steps, None at others.

        Training is not changed by it.
        """
        if self.source is None or step % self.config.every:
            return None
        device = self.run.accelerator.device
        with bar("k-NN: features", len(self.source), shown=self.run.main) as advance:
            features = extract(encoder, self.source, self.views, device=device, progress=advance)
        mine = local_slice(len(features.x), *world())
        right = 0
        if mine.stop > mine.start:
            k = self.config.k
            found = knn_predict(features.x, features.labels, k=k, temperature=0.1, rows=mine)
            right = int((found == features.labels[mine]).sum())
        accuracy = sum(gather_objects(right)) / len(features.x)
        self.run.log(step, {"knn": accuracy})
        return accuracy
