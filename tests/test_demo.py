"""The demo: a table, and a page that says the same."""

import re
from pathlib import Path

import pytest
from launch import called


@pytest.mark.slow
def test_the_demo_ends_with_a_page_that_has_been_measured(tmp_path: Path) -> None:
    done = called("tools/demo.py", "--out", tmp_path / "d", "--steps", "4", "--resamples", "20")
    assert done.returncode == 0, done.stderr
    assert "16 people never seen in training" in done.stdout
    page = re.search(r"open (\S+report\.html) in a browser", done.stdout)
    assert page is not None, done.stdout
    text = Path(page[1]).read_text()
    assert "It has not been compared with baselines yet" not in text
    assert "MAP@R" in text
    assert "of pretrained" in text or "of pixels" in text or "of colours" in text
