"""The rooms: imports go down only, and parts on one floor do not know one another."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT

FLOORS = {
    0: "errors config cli seeds schedule numerics rows relations boxes distributed weights "
    "checkpoint progress allocator compiled threads foreign_names",
    1: "encoder augment data losses mining optim monitor run foreign",
    2: "methods evaluate",
    3: "step watch train",
    4: "pretrain finetune doctor report index bundle __main__",
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
WITHIN = {
    "step",
    "watch",
    "train",
    "pretrain",
    "finetune",
    "doctor",
    "report",
}  # floors 3 and 4: one stands on the other
FILES = sorted((ROOT / "selfsup").rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "selfsup").with_suffix("").parts[0]


def imported_rooms(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("selfsup."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "selfsup":
            found |= {alias.name for alias in node.names if alias.name in FLOOR}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down_only(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        return
    for other in imported_rooms(file) - {room}:
        below = FLOOR[other] < FLOOR[room]
        stands_on = FLOOR[other] == FLOOR[room] and (FLOOR[room] == 0 or room in WITHIN)
        assert below or stands_on, f"{room} (floor {FLOOR[room]}) imports {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_have_one_subject(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 250


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.py")), ids=lambda f: f.name)
def test_recipes_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 65


def test_only_the_loop_and_the_step_call_backward() -> None:
    calls = {f.name for f in FILES if ".backward(" in f.read_text()}
    assert calls == {"step.py"}


@pytest.mark.slow
def test_every_module_is_imported_without_numba_but_the_compiled_ones() -> None:
    code = """
import importlib, pkgutil, sys
sys.modules["numba"] = None
import selfsup
for module in pkgutil.walk_packages(selfsup.__path__, "selfsup."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        assert "numba" in str(error), error
        print(module.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [
        "selfsup.augment.fast",
        "selfsup.data.fast",
        "selfsup.evaluate.fast",
        "selfsup.evaluate.pairs",
        "selfsup.evaluate.selection",
        "selfsup.evaluate.softmax_loop",
    ]
