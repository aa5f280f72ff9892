"""The examples in augment/README.md work as they stand."""

from typing import Any

import torch
from launch import PACKAGE
from views import crops

from selfsup.augment.apply import apply
from selfsup.augment.draws import draw


def test_the_pipeline_of_the_readme_draws_and_applies_its_own_change() -> None:
    text = (PACKAGE / "augment" / "README.md").read_text()
    usage, example = (block.split("```")[0] for block in text.split("```python\n")[1:])
    names: dict[str, Any] = {}
    exec(compile(usage, "README.md", "exec"), names)
    assert names["views"].shape == (8, 2, 3, 64, 64)
    exec(compile(example, "README.md", "exec"), names)
    views, changes = names["views"], names["changes"]
    (draws,) = draw(views, 4, seed=0, step=0, changes=changes)
    x = crops(4, 2, 16)
    seen = apply(x, draws, views, changes)
    (plain,) = draw(views, 4, seed=0, step=0)
    assert not torch.equal(seen, apply(x, plain, views))
    assert draws.quarters.any()
    assert not draws.hue.any()
