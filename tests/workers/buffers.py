"""Prints, of two processes that trained, which buffers DDP sends and which are equal, as JSON.

Started by torchrun.
"""

import hashlib
import json
import sys
import unittest.mock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from workers.gradients import METHODS, NORMS

from selfsup.core import distributed
from selfsup.data.sources import ArraySource
from selfsup.doctor.certificate import FIRST, prepare
from selfsup.evaluate.features import extract
from selfsup.training.step import Stepper


def digests(values: dict[str, Tensor]) -> dict[str, str]:
    return {name: hashlib.sha1(x.numpy().tobytes()).hexdigest() for name, x in values.items()}


def differing(values: dict[str, Tensor]) -> list[str]:
    """Names of those that are not the same on all processes, bit by bit."""
    first, *others = distributed.gather_objects(digests(values))
    return [name for name in first if any(other[name] != first[name] for other in others)]


def trained(name: str) -> Stepper:
    step, batches = prepare(METHODS[name], NORMS[name.split("/")[1]])
    for i in range(FIRST, FIRST + 2):
        step(batches[i])
        step.method.after_step(step.embeddings, step.labels, step.info(batches[i]))
    return step


def describe(name: str) -> dict[str, Any]:
    step = trained(name)
    assert isinstance(step.network, DistributedDataParallel)
    sent = {id(buffer) for buffer in step.network.modules_buffers}
    buffers = dict(step.method.named_buffers())
    return {
        "sent": [name for name, buffer in buffers.items() if id(buffer) in sent],
        "not sent": [name for name, buffer in buffers.items() if id(buffer) not in sent],
        "differ": differing(buffers),
    }


def probe() -> dict[str, Any]:
    """What a probe makes of running statistics that differ."""
    step = trained("simclr/batch")
    encoder = step.method.encoder
    before = differing(dict(encoder.named_buffers()))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    features = extract(
        encoder, ArraySource(images, None, []), step.views[0], device=torch.device("cpu")
    )
    after = differing(dict(encoder.named_buffers()))
    return {"before": before, "after": after, "features": differing({"x": features.x})}


def hosts() -> list[int]:
    """Labels of both processes, gathered as where the usual group sends tensors of GPUs alone."""
    with unittest.mock.patch("torch.distributed.get_backend", return_value="nccl"):
        group = distributed.group_of_hosts()
    assert group is not None
    labels = torch.arange(2) + 10 * distributed.world()[0]
    gathered: list[int] = distributed.gather_rows(labels, group=group).tolist()
    return gathered


if __name__ == "__main__":
    torch.set_num_threads(1)
    results: dict[str, Any] = {name: describe(name) for name in sys.argv[1:]}
    results |= {"probe": probe(), "hosts": hosts()}
    if distributed.is_main():
        print(json.dumps(results))
    distributed.finish()
