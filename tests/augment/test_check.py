"""Settings of views that can mean nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from selfsup.augment.apply import apply
from selfsup.augment.check import check
from selfsup.augment.draws import draw
from selfsup.config import LocalViewsConfig, SecondViewConfig, ViewsConfig
from selfsup.config.pipelines import PIPELINES
from selfsup.core.errors import UserError


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_is_fine_and_makes_views(name: str) -> None:
    config = replace(PIPELINES[name], size=48)
    check(config)
    for group, draws in zip(config.by_size(), draw(config, 6, seed=0, step=0), strict=True):
        shape = 6, group.views, group.channels, group.size, group.size
        crops = torch.randint(0, 256, shape, dtype=torch.uint8)
        views = apply(crops, draws, group)
        assert views.shape == shape
        assert views.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"flip": 50.0}, "--views.flip is a probability, 0 to 1, not 50"),
        ({"quarter_turn": -0.1}, "--views.quarter-turn is a probability"),
        ({"second": SecondViewConfig(blur=2.0)}, r"--views\.second\.blur is a probability"),
        ({"local": LocalViewsConfig(solarize=7.0)}, r"--views\.local\.solarize is a probability"),
        ({"area": (1.0, 0.2)}, "--views.area goes from low to high, above 0 and at most 1"),
        ({"area": (0.5, 2.0)}, "--views.area goes from low to high"),
        ({"ratio": (0.0, 1.0)}, "--views.ratio goes from low to high, above 0, not"),
        ({"sigma": (0.0, 0.0)}, "--views.sigma goes from low to high"),
        ({"erase_ratio": (3.0, 1.0)}, "--views.erase-ratio goes from low to high"),
        ({"std": (0.2, 0.0, 0.2)}, "--views.std must be above 0"),
        ({"hue": -0.1}, "--views.hue must be 0 or more"),
        ({"size": 1}, "2 pixels or more"),
    ],
)
def test_a_number_that_cannot_be_is_told(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(replace(ViewsConfig(), **changed))
