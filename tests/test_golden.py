"""Golden files: every flag with its default, and an old checkpoint that must load.

After an intended change, `PYTHONPATH=.:tests python tests/test_golden.py` writes the flags again;
old checkpoints are never rewritten.
"""

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfsup.__main__ import TOOLS
from selfsup.catalog import recipes
from selfsup.config import (
    AdaptConfig,
    BlendConfig,
    CompareDistilledConfig,
    EmbedConfig,
    HealthConfig,
    IndexConfig,
    KNNConfig,
    LinearConfig,
    RetrievalConfig,
    VerifyConfig,
)
from selfsup.training import checkpoint

COMMANDS = [*(name for name in TOOLS if name not in ("pretrain", "finetune")), *recipes()]
"""pretrain and finetune have the flags of the recipe that they choose."""
GOLDEN = Path(__file__).with_name("golden")
CONFIGS: dict[str, Any] = {
    "knn": KNNConfig,
    "linear": LinearConfig,
    "retrieval": RetrievalConfig,
    "verify": VerifyConfig,
    "health": HealthConfig,
    "embed": EmbedConfig,
    "index": IndexConfig,
    "blend": BlendConfig,
    "adapt": AdaptConfig,
    "compare-distilled": CompareDistilledConfig,
}


def flags(config: Any, prefix: str = "--") -> Iterator[str]:
    """Each flag and its default, one a line."""
    for field in dataclasses.fields(config):
        name = prefix + field.name.replace("_", "-")
        value = field.default if isinstance(config, type) else getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from flags(value, f"{name}.")
        else:
            yield name if value is dataclasses.MISSING else f"{name} {value!r}"


def golden_text(command: str) -> str:
    """The golden text of a command."""
    room = "recipes" if command in recipes() else "tools"
    module = importlib.import_module(f"{room}.{command.replace('-', '_')}")
    return "\n".join(flags(CONFIGS.get(command) or module.Config)) + "\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_and_defaults_are_those_of_the_golden_file(command: str) -> None:
    file = GOLDEN / f"{command}.txt"
    assert file.exists(), "a new command: PYTHONPATH=.:tests python tests/test_golden.py writes it"
    assert golden_text(command) == file.read_text()


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with a buffer, and its optimiser."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return model, torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)


def test_an_old_checkpoint_loads() -> None:
    model, optimizer = small()
    path = checkpoint.newest(GOLDEN / "checkpoints", pytest.fail)
    assert path is not None
    step, extra = checkpoint.load(path, model, optimizer)
    assert (step, extra) == (3, None)
    weight, bias, *_ = model.parameters()
    assert weight.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert optimizer.state[bias]["momentum_buffer"].tolist() == [7, 8, 9]
    assert optimizer.param_groups[0]["momentum"] == 0.9


def write() -> None:
    """The flags, and a checkpoint if there is none yet."""
    for command in COMMANDS:
        (GOLDEN / f"{command}.txt").write_text(golden_text(command))
    if (GOLDEN / "checkpoints").exists():
        return
    model, optimizer = small()
    weight, bias, *_ = model.parameters()
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        weight.copy_(torch.arange(1.0, 7).view(3, 2))
        optimizer.state[bias]["momentum_buffer"].copy_(torch.tensor([7.0, 8, 9]))
    checkpoint.save(
        GOLDEN / "checkpoints", checkpoint.snapshot(3, model, optimizer, extra=None), keep=1
    )


if __name__ == "__main__":
    write()
