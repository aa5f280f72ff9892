"""The demo: a table, and a page that says the same."""

import json
import re
from pathlib import Path

import pytest
from launch import called
from report.test_pages import Tags


@pytest.mark.slow
def test_the_demo_ends_with_a_page_that_has_been_measured(tmp_path: Path) -> None:
    done = called("tools/demo.py", "--out", tmp_path / "d", "--steps", "4", "--resamples", "20")
    assert done.returncode == 0, done.stderr
    assert "16 people never seen in training" in done.stdout
    page = re.search(r"open (\S+report\.html) in a browser", done.stdout)
    assert page is not None, done.stdout
    assert [file.name for file in (tmp_path / "d").rglob("*.html")] == ["report.html"]
    assert Path(page[1]) == tmp_path / "d" / "report.html"
    text = Tags(Path(page[1]).read_text()).text
    assert "Not compared with baselines yet" not in text
    for row in ("raw pixels", "random weights", "pretrained", "k-NN", "linear probe", "MAP@R"):
        assert row in text
    assert "test.npz, which training has not seen. All 160 are compared" in text
    assert "images of training itself" not in text
    record = json.loads((tmp_path / "d" / "demo.json").read_text())
    for name, figure in record["fine-tuned"].items():
        cell = f"{name}{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
        assert cell in text, "the page and the printed table differ"
