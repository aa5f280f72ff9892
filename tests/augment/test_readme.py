"""The example in augment/README.md works as it stands."""

from typing import Any

import torch
from launch import ROOT
from views import crops

from selfsup.augment.apply import apply
from selfsup.augment.draws import draw


def test_the_pipeline_of_the_readme_draws_and_applies_its_own_change() -> None:
    text = (ROOT / "selfsup" / "augment" / "README.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    views, changes = names["views"], names["changes"]
    (draws,) = draw(views, 4, seed=0, step=0, changes=changes)
    x = crops(4, 2, 16)
    seen = apply(x, draws, views, changes)
    (plain,) = draw(views, 4, seed=0, step=0)
    assert not torch.equal(seen, apply(x, plain, views))
    assert draws.quarters.any()
    assert not draws.hue.any()
