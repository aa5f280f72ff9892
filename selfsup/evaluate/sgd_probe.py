"""The linear probe by SGD, many learning rates at once: their heads are one matrix.

Shape letters: n training features, q test features, d width, c classes, l learning rates, b of a
batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from selfsup.core.schedule import warmup_cosine
from selfsup.core.seeds import generator
from selfsup.evaluate.linear_probe import Probe, prepare

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
"""DINOv2's, for a batch of 256; in proportion for others."""
MOMENTUM = 0.9
CHUNK = 256  # images that are classified at a time


def sweep(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    seed: int,
    rates: tuple[float, ...] = RATES,
    epochs: int = 10,
    batch: int = 1024,
    progress: Callable[[int], None] = lambda epochs: None,
) -> Probe:
    """Train linear heads by SGD with momentum 0.9, no weight decay; choose the rate on a tenth.

    All heads see the same batches; the products of one batch with all of them are one product.
    Source: Oquab et al. 2023 (DINOv2), https://arxiv.org/abs/2304.07193, appendix B.2.

    Args:
        train: float32 [n, d]; nine tenths are trained on.
        labels: [n] integers, two different ones at least.
        test: float32 [q, d]; takes no part in any choice.
        seed: of the split of train and of the order of images.
        rates: learning rates at the start, falling to 0 as a cosine.
        epochs: passes over the images.
        batch: images at a time.
        progress: called with 1 after each epoch.

    Raises:
        ValueError: there is only one class, or no class has two images to choose with.
    """
    ready = prepare(train, labels, test, seed=seed)
    x, y = ready.train[ready.fitted], ready.classes[ready.fitted]
    heads = Heads(x.shape[1], len(ready.names), torch.tensor(rates) * batch / 256)
    steps = -(-len(x) // batch)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator(seed, epoch, "order"))
        for i, rows in enumerate(order.split(batch)):
            done = epoch * steps + i
            scale = warmup_cosine(done, epochs * steps, warmup=0, peak=1.0)
            heads.step(x[rows], y[rows], scale)
        progress(1)
    right = heads.predict(ready.train[ready.held_out]) == ready.classes[ready.held_out]  # [l, ...]
    best = int(right.sum(1).argmax())  # of equal ones the smallest
    return Probe(ready.names[heads.predict(ready.test)[best]], rates[best], converged=True)


class Heads:
    """Linear classifiers that differ in their learning rate alone."""

    def __init__(self, d: int, c: int, rates: Tensor) -> None:
        """Start all heads at zero."""
        self.c, self.rates = c, rates
        self.weight = torch.zeros(len(rates) * c, d)
        self.bias = torch.zeros(len(rates) * c)
        self.speed = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]

    def step(self, x: Tensor, classes: Tensor, scale: float) -> None:
        """Take a step of each head on a batch [b, d], at `scale` of its learning rate; in place."""
        b = len(x)
        error = torch.addmm(self.bias, x, self.weight.T).view(b, -1, self.c).softmax(2)  # [b, l, c]
        true = classes[:, None, None].expand(b, len(self.rates), 1)
        error.scatter_add_(2, true, torch.full(true.shape, -1.0))
        by_logits = error.view(b, -1) / b
        rate = (self.rates * scale).repeat_interleave(self.c)
        by_weight, by_bias = self.speed
        by_weight.mul_(MOMENTUM).addmm_(by_logits.T, x)
        by_bias.mul_(MOMENTUM).add_(by_logits.sum(0))
        self.weight.addcmul_(by_weight, rate[:, None], value=-1)
        self.bias.addcmul_(by_bias, rate, value=-1)

    def predict(self, x: Tensor) -> Tensor:
        """Predict the class by each head. [n, d] -> int64 [l, n]."""
        blocks = []
        for rows in x.split(CHUNK):
            logits = torch.addmm(self.bias, rows, self.weight.T)
            blocks.append(logits.view(len(rows), -1, self.c).argmax(2).T)
        return torch.cat(blocks, dim=1)
