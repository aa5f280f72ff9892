"""What a release is made of: its metadata, its version in one place, its workflows."""

import os
import re
import tomllib
from typing import Any

import pytest
import yaml
from launch import PACKAGE, ROOT

import selfsup

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text()


def test_the_version_of_the_citation_is_that_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / ".github" / "CITATION.cff").read_text())
    assert citation["version"] == selfsup.__version__
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_the_changelog_begins_with_this_version() -> None:
    heading = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == selfsup.__version__


def test_an_index_of_packages_can_sort_this_one() -> None:
    assert (PACKAGE / "py.typed").is_file()
    topics = {each.split(" :: ")[0] for each in PROJECT["classifiers"]}
    assert {"Development Status", "Intended Audience", "Topic", "Typing"} <= topics
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in PROJECT["classifiers"]
    assert not any(each.startswith("License ::") for each in PROJECT["classifiers"])  # PEP 639


@pytest.mark.parametrize("script", [".ci/run", ".ci/package"])
def test_the_workflow_runs_the_scripts_that_a_person_runs(script: str) -> None:
    assert re.search(rf"run: {re.escape(script)}\b", WORKFLOW)
    assert os.name == "nt" or (ROOT / script).stat().st_mode & 0o111


def test_the_workflow_has_three_systems_and_the_oldest_python() -> None:
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    systems = {jobs["everything"]["runs-on"], *jobs["quick"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert oldest in jobs["quick"]["strategy"]["matrix"]["python"]
    assert all("timeout-minutes" in job for job in jobs.values())
