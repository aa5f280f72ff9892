"""Embeddings are of the views and the networks that their fields are named after."""

from typing import Any

import pytest
import torch
from small import normal
from torch import Tensor

from selfsup.doctor.cases import CASES
from selfsup.doctor.certificate import prepare

TWO_VIEWS = [name for name, case in CASES.items() if case.views.views == 2 and name != "dinov2"]
"""DINOv2 embeds masks too: see test_masked.py."""


def prepared(case: str) -> Any:
    """A method whose teacher is not its student."""
    method = prepare(CASES[case], dtype=torch.float64)[0].method
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith("teacher"):
                parameter.add_(torch.randn(parameter.shape, generator=g, dtype=torch.float64) / 9)
    return method


@pytest.mark.parametrize("case", TWO_VIEWS)
def test_fields_are_of_the_view_and_the_network_they_are_named_after(case: str) -> None:
    method = prepared(case)
    x = normal(5, 2, 3, 16, 16, seed=1)
    groups = (x, normal(5, 2, 3, 8, 8, seed=2)) if CASES[case].views.local.views else (x,)

    def student(view: Tensor) -> Any:
        return method.projector(method.encoder(view))

    def predicted(view: Tensor) -> Any:
        return method.predictor(student(view))

    def alone(view: Tensor) -> Tensor:  # each view by itself: no norm here is over the batch
        return torch.cat([student(view[i : i + 1]) for i in range(len(view))])

    one, two = x.unbind(1)
    if len(groups) == 2:
        z = torch.stack([alone(view) for group in groups for view in group.unbind(1)], 1)
        expected = [z]
        if case == "dino":
            expected.append(torch.stack([method.teacher(one), method.teacher(two)], 1))
    elif case == "distil":  # its targets are of images, and looked up after `embed`
        both = [torch.cat([method.encoder(x[i : i + 1, v]) for i in range(5)]) for v in (0, 1)]
        expected = [torch.stack([method.head(f) for f in both], 1), x.new_zeros(5, 0, 12)]
        expected.append(torch.stack([method.projector(f) for f in both], 1))
    elif case in ("byol", "moco-v3"):
        expected = [predicted(one), predicted(two), method.teacher(one), method.teacher(two)]
    elif case in ("simsiam", "nnclr"):
        expected = [predicted(one), predicted(two), student(one), student(two)]
    elif case in ("moco-v2", "tico"):
        expected = [student(one), method.teacher(two)]
    else:
        expected = [alone(one), alone(two)]
    assert method.compares_networks == (case in ("moco-v2", "tico"))
    actual = method.embed(groups)
    assert len(actual) == len(expected)
    for field, value, of in zip(actual._fields, actual, expected, strict=True):
        torch.testing.assert_close(value, of, msg=field)
        keys = method.compares_networks and field == "second"
        target = keys or field.endswith("target") or field == "teacher"
        assert value.requires_grad != target, field
    if case == "lejepa":
        assert method.large == 2  # not the local views
