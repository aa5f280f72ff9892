"""The study of defaults: what is finished is not run again, and what is missing is left blank."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

bench_defaults: Any = importlib.import_module("tools.bench.bench_defaults")
main, table = bench_defaults.main, bench_defaults.table
SETS = {"faces": ("a.npz", "b.npz"), "digits": ("c.npz", "d.npz")}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The jobs that are run, each in no time."""
    jobs: list[dict[str, Any]] = []

    def measure(job: dict[str, Any], files: tuple[str, str], out: Path) -> dict[str, Any]:
        jobs.append(job)
        signs = {"gap": 0.5, "rank": 20.0, "std": 0.5, "nearest": 0.4, "positive": 0.4}
        after = 0.1 + job["rate"] + job["seed"] / 10
        return {"job": job, "after": after, "before": 0.05, "log": [signs] * 4}

    monkeypatch.setattr(bench_defaults, "measure", measure)
    monkeypatch.setattr(bench_defaults, "write_sets", lambda out: iter(SETS.items()))
    return jobs


def config(out: Path, **settings: Any) -> Any:
    return bench_defaults.Config(
        **{"out": str(out), "rates": (0.001, 0.01), "miners": ("semi-hard",)} | settings
    )


def test_another_seed_is_another_run(
    tmp_path: Path, measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, runs in ((0, 8), (0, 8), (1, 16), (0, 16), (1, 16)):
        main(config(tmp_path, seed=seed))
        assert len(measured) == runs
        assert "8 runs" in capsys.readouterr().out
    assert {job["seed"] for job in measured} == {0, 1}


def test_each_seed_has_its_own_table(
    tmp_path: Path, measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for seed in (0, 1, 0):
        main(config(tmp_path, seed=seed))
        shown.append(capsys.readouterr().out)
    assert "| 0.101 | 0.110 |" in shown[0]
    assert "| 0.201 | 0.210 |" in shown[1]
    assert shown[2] == shown[0]


def test_results_of_before_seeds_were_recorded_are_of_seed_0(
    tmp_path: Path, measured: list[dict[str, Any]]
) -> None:
    main(config(tmp_path))
    file = tmp_path / "results.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        del record["job"]["seed"]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    main(config(tmp_path))
    assert len(measured) == 8
    main(config(tmp_path, seed=3))
    assert len(measured) == 16


@pytest.mark.parametrize(
    "second",
    [
        {"rates": (0.1,)},
        {"miners": ("batch-hard",)},
        {"rates": (0.01, 0.1), "miners": ("batch-hard", "semi-hard")},
        {"sets": ("mine=e.npz,f.npz",), "rates": (0.1,)},
    ],
)
def test_a_table_of_other_choices_than_before_leaves_blanks(
    tmp_path: Path,
    measured: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    second: dict[str, Any],
) -> None:
    main(config(tmp_path, rates=(0.001,)))
    measured.clear()
    capsys.readouterr()
    main(config(tmp_path, **second))
    rows = capsys.readouterr().out.splitlines()
    columns = rows[0].count("|")
    assert all(row.count("|") == columns for row in rows if row.startswith("|"))
    assert measured


def test_runs_that_are_missing_are_blank_and_lose_nothing() -> None:
    def run(name: str, rate: float, after: float) -> dict[str, Any]:
        job = {"set": name, "start": "random", "miner": "semi-hard", "rate": rate}
        return {"job": job, "after": after, "before": 0.1, "log": []}

    rows = table([run("a", 0.1, 0.5), run("a", 0.2, 0.3), run("b", 0.2, 0.4)]).splitlines()
    assert rows[2] == "| a, random | 0.100 | 0.500 | 0.300 |"
    assert rows[3] == "| b, random | 0.100 |  | 0.400 |"
    assert rows[4] == "| loss at most | | 0.000 | 0.200 |"
