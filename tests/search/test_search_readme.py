"""The example in search/README.md works as it stands, and its table has the numbers of its code."""

from typing import Any

import torch
from launch import PACKAGE

TEXT = (PACKAGE / "search" / "README.md").read_text()


def names_of_example() -> dict[str, Any]:
    names: dict[str, Any] = {}
    example = TEXT.split("```python\n")[1].split("```")[0]
    exec(compile(example, "README.md", "exec"), names)
    return names


def test_the_example_runs() -> None:
    names_of_example()


def test_the_table_has_the_numbers_of_the_example() -> None:
    names = names_of_example()
    true = (names["query"] @ names["bank"].T)[0]
    columns = torch.stack([true, names["quick"], names["lower"], names["upper"]], dim=1)
    for row, numbers in enumerate(columns.tolist()):
        (line,) = (line for line in TEXT.splitlines() if line.startswith(f"| {row} |"))
        shown = [cell.strip(" *") for cell in line.split("|")[2:6]]
        assert shown == [f"{number:.4f}" for number in numbers]
