"""The rooms: imports go down only, no circle between files, and one sentence a room."""

import ast
from pathlib import Path

import pytest
from launch import PACKAGE, ROOT

ORDER = [
    *("core", "config", "losses", "mining", "augment", "data", "encoders", "methods"),
    *("training", "search", "evaluate", "report", "doctor", "catalog", "api", "__main__"),
]
"""From the ground up: a room may import those before it."""
INSTALLED = ("recipes", "tools")
"""Folders of the checkout that an installed package has inside."""
FILES = sorted(
    file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in INSTALLED
)


def name_of(file: Path) -> str:
    """`selfsup/core/seeds.py` as `selfsup.core.seeds`."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def imported(file: Path) -> set[str]:
    """Modules of this package that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "selfsup":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else str(node.module))
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.split(".")[0] == "selfsup"}
    return names & set(MODULES) - {name_of(file)}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


IMPORTS = {module: imported(file) for module, file in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    room = room_of(module)
    if not room:  # the package itself gives its public names, lazily
        return
    for other in map(room_of, IMPORTS[module]):
        if other != room:
            assert other, f"{module} imports the package's public names; import where they live"
            assert ORDER.index(other) < ORDER.index(room), f"{module} imports {other}"


def test_no_circle_between_files() -> None:
    left = {module: imports - {"selfsup"} for module, imports in IMPORTS.items()}
    while free := [module for module, imports in left.items() if not imports & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"each of these imports another of them: {sorted(left)}"


@pytest.mark.parametrize("room", ORDER[:-3])
def test_a_room_says_in_one_sentence_what_lives_there(room: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert text is not None
    assert text.split("\n\n")[0].rstrip().endswith(".")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_have_one_subject(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.py")), ids=lambda f: f.name)
def test_recipes_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 65


def test_tests_mirror_the_package() -> None:
    support = {"golden", "oracles", "workers"}
    folders = {f.name for f in (ROOT / "tests").iterdir() if f.is_dir() and f.name[0] not in "._"}
    assert folders - support <= set(ORDER)


def test_only_the_step_calls_backward() -> None:
    calls = {f.name for f in FILES if ".backward(" in f.read_text()}
    assert calls == {"step.py"}


def test_no_two_test_files_have_one_name() -> None:
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)  # else pytest collects only one of them
