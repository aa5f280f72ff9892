"""What the READMEs tell is true: commands run, flags exist, links lead somewhere."""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import tyro
from guides import ELSEWHERE, GUIDES, LONG, blocks, commands, furnish, script_of, small
from launch import FINETUNE, PACKAGE, PRETRAIN, ROOT, called

WORDS = 900
"""Of the first page, at most."""


class Parsed(BaseException):
    """Ends a command once its flags are read."""


def parse_alone(script: str, flags: list[str]) -> None:
    """Read the flags of a command, and nothing else."""
    read = tyro.cli

    def stop(*args: Any, **keywords: Any) -> None:
        read(*args, **keywords)
        raise Parsed

    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with (
        patch.object(tyro, "cli", stop),
        patch.object(sys, "argv", [script, *flags]),
        pytest.raises(Parsed),
    ):
        module.command()


@pytest.mark.parametrize("guide", GUIDES)
def test_every_command_of_a_guide_exists_and_has_its_flags(guide: str) -> None:
    for words in commands(GUIDES[guide].read_text()):
        if words[0] in ELSEWHERE:
            continue
        script, flags = script_of(words)
        assert (ROOT / script).is_file(), words
        if not script.startswith(BARE):
            parse_alone(script, flags)


BARE = ("tools/cifar10.py", "tools/bench/", "recipes/notebooks/")
"""Scripts without a Config, or with other packages."""


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_stand_in_blocks_that_are_tested(guide: str) -> None:
    text = re.sub(r"^```.*?^```", "", GUIDES[guide].read_text(), flags=re.DOTALL | re.MULTILINE)
    loose = re.findall(r"^    (?:selfsup|python|accelerate|pip|pytest) .*", text, re.MULTILINE)
    assert loose == []


@pytest.mark.parametrize("guide", GUIDES)
def test_links_and_pictures_of_a_guide_lead_somewhere(guide: str) -> None:
    file = GUIDES[guide]
    if not file.is_relative_to(ROOT):  # of an installed package, whose links lead to a checkout
        file = ROOT / file.relative_to(PACKAGE.parent)
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", file.read_text()):
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        there = there / "README.md" if there.is_dir() else there
        assert there.is_file(), f"{guide}: {target}"
        if anchor:
            assert anchor in anchors(there.read_text()), f"{guide}: {target}"


def anchors(text: str) -> set[str]:
    """What GitHub names the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_first_page_is_short_and_opens_with_a_picture() -> None:
    text = GUIDES["README.md"].read_text()
    assert len(text.split()) <= WORDS
    picture, first = text.index("!["), text.index("```sh")
    assert picture < first < 1500


def test_pictures_are_small() -> None:
    files = [*(ROOT / ".github" / "pictures").iterdir()]
    assert files
    assert sum(file.stat().st_size for file in files) < 1e6


@pytest.fixture(autouse=True, scope="module")
def _read_in_process() -> Iterator[None]:
    """Few images are read at once, without the seconds that reader processes take to start."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("selfsup.data.loader", "selfsup.evaluate.features"):
            patch.setattr(f"{place}.default_workers", lambda **where: 0)
        yield


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the guides name, runs too."""
    room = furnish(tmp_path_factory.mktemp("guides"))
    runs = room / "runs"
    done = called(
        "recipes/pretrain_simclr.py", "--data", room / "images", "--out", runs / "simclr", *PRETRAIN
    )
    assert done.returncode == 0, done.stderr
    for name in ("a", "large", "drawings"):
        shutil.copytree(runs / "simclr", runs / name)
    flags = ("--data", room / "products", "--init", runs / "simclr", *FINETUNE)
    done = called("recipes/finetune_triplet.py", "--out", runs / "triplet", *flags)
    assert done.returncode == 0, done.stderr
    for name in ("b", "alone", "small"):
        shutil.copytree(runs / "triplet", runs / name)
    return room


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run_as_written_in_their_small_form(
    guide: str, room: Path, tmp_path: Path
) -> None:
    here = tmp_path / "room"
    shutil.copytree(room, here, symlinks=True)
    done_already: set[str] = set()
    for words in commands(GUIDES[guide].read_text()):
        if words[0] in ELSEWHERE:
            continue
        script, flags = script_of(words)
        if Path(script).stem.replace("_", "-") in LONG or script.startswith(BARE):
            continue
        short = small(script, flags)
        if " ".join([script, *short]) in done_already:
            continue
        done_already.add(" ".join([script, *short]))
        if script.startswith("recipes/") or Path(script).stem in ("pretrain", "finetune", "adapt"):
            shutil.rmtree(here / short[short.index("--out") + 1], ignore_errors=True)
        done = called(script, *short, cwd=here)
        assert done.returncode == 0, f"{script} {' '.join(short)}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_python_of_the_guides_runs_as_written_in_its_small_form(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "room"
    shutil.copytree(room, here, symlinks=True)
    monkeypatch.chdir(here)
    for name in ("pretrain", "finetune"):
        monkeypatch.setattr(f"selfsup.api.{name}", quick(name))
    for guide in ("README.md", "selfsup"):
        shutil.rmtree(here / "runs")
        names: dict[str, Any] = {}
        for block in blocks(GUIDES[guide].read_text(), "python"):
            exec(compile(block, guide, "exec"), names)
        assert names["model"].embed("query.jpg").shape == (1, 128)


NOTEBOOKS = sorted((ROOT / "recipes" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_in_the_percent_form(file: Path) -> None:
    text = file.read_text()
    assert "format_name: percent" in text
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    assert len(cells) >= 8
    assert all(cell.startswith((" [markdown]\n#", "\n")) for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_to_its_end_in_its_small_form(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^STEPS = \d+", "STEPS = 2", file.read_text(), flags=re.MULTILINE)
    text = text.replace("side=48", "side=24")
    exec(compile(text, str(file), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert re.search(r"adapted leads|keep the published|planted label errors", printed)


def quick(name: str) -> Any:
    """selfsup.pretrain or finetune as the guide calls it, for two steps of a small network."""
    import selfsup.api

    call = getattr(selfsup.api, name)
    more: dict[str, Any] = {"classes": 3, "images": 2}
    if name == "pretrain":
        more = {"batch": 8, "method": {"name": "simclr", "hidden": 16, "dim": 8}}
        more |= {"encoder": {"name": "test_resnet"}, "views": {"size": 16}}

    def short(data: Any, **settings: Any) -> Any:
        settings.pop("epochs", None)
        return call(data, **{**settings, **more, "steps": 2, "report": False})

    return short
