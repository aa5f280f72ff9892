"""The report of a run, or of several side by side: one page from the files in their folders."""

import contextlib
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from selfsup.core.errors import UserError
from selfsup.core.json_files import read_json
from selfsup.core.json_lines import read_steps
from selfsup.core.paths import run_in
from selfsup.core.progress import SHORT
from selfsup.core.yaml_files import read_yaml
from selfsup.report.curves import chart
from selfsup.report.page import heading, page, paragraph, preformatted, table
from selfsup.report.verdict import Record, verdict
from selfsup.training.same_work import flat

CURVES = {
    "Loss": (("loss",), ""),
    "Gap": (("gap",), "deviations that negatives are beyond positives; below its start: worse"),
    "Nearest": (("nearest",), "fraction whose nearest image is of its class, or its own view"),
    "Spread": (("std", "cosine"), "std 1: even over the sphere; 0, or cosine 1: all equal"),
    "Rank": (("rank",), "directions that embeddings use"),
    "k-NN during training": (("knn",), "leave-one-out accuracy"),
    "Validation": (("map_at_r", "recall_at_1"), "of images that training does not see"),
    "Forgetting": (
        ("kept_map_at_r", "kept_recall_at_1", "kept_knn"),
        "the same figures of --probe.keep",
    ),
    "Active": (("active",), "fraction of triplets or pairs with a loss"),
    "Distances": (("positive", "negative"), "of images of one label and of two"),
    "Teacher": (("distil",), "loss of distillation alone, beside a ranking loss"),
    "Learning rate": (("lr",), ""),
    "Images a second": (("images_per_s",), ""),
    "Waiting for data": (("waiting",), "fraction of the time"),
}
"""By title: figures of the log, and a note for the reader."""


@dataclass(frozen=True)
class Files:
    """The files of a run's folder."""

    folder: Path
    name: str
    """For the page, different for each run."""
    config: dict[str, Any]
    log: list[Record]
    records: list[Record]
    """What evaluation tools wrote."""
    bad: list[tuple[str, str]]
    about: dict[str, str] = field(default_factory=dict)
    """Command and versions."""
    outcome: list[str] = field(default_factory=list)
    """Which encoder was exported and why, in sentences."""

    @property
    def unfinished(self) -> str:
        """How far the run has come, if it has not exported its encoder; else empty."""
        begun = (self.folder / "checkpoints").is_dir() or bool(self.about)
        if not begun or (self.folder / "encoder" / "config.json").is_file():
            return ""
        step = max((int(line["step"]) for line in self.log if "step" in line), default=0)
        total = self.config.get("steps")
        return f"it has come to step {step}" + (f" of {total}" if total else "")


def read_run(folder: Path) -> Files:
    """Read the files of a run, as far as they are there.

    Raises:
        UserError: it is no run's folder.
    """
    folder = run_in(folder)
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} is no run: it has no config.yaml")
    _, config = read_yaml(folder / "config.yaml")
    log = list(read_steps(folder / "log.jsonl"))
    bad: list[tuple[str, str]] = []
    with contextlib.suppress(FileNotFoundError):
        text = (folder / "bad_images.csv").read_text(errors="backslashreplace")
        bad = [(row[0], row[1]) for row in list(csv.reader(text.splitlines()))[1:] if len(row) > 1]
    records, about, outcome = [], {}, []
    for file in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError, OSError):
            record = read_json(file)
            if file.name == "about.json":
                about = {str(key): str(value) for key, value in record.items()}
            elif file.name == "validation.json" and isinstance(record, dict):
                outcome = [str(sentence) for sentence in record.get("sentences", [])]
            elif isinstance(record, dict) and {"tool", "figures", "facts"} <= record.keys():
                records.append(record)
    settings = config if isinstance(config, dict) else {}
    return Files(folder, folder.name or str(folder), settings, log, records, bad, about, outcome)


def report(runs: Sequence[Files], more: Sequence[str] = ()) -> str:
    """Lay out the page: verdict, curves, `more` (images), figures, data, settings."""
    names = [run.folder.name for run in runs]
    runs = [r if names.count(r.folder.name) == 1 else replace(r, name=str(r.folder)) for r in runs]
    parts: list[str] = []
    for run in runs:
        init = str(run.config.get("init") or "")
        said = verdict(run.log, run.records, init=init, unfinished=run.unfinished)
        if not run.unfinished:
            said += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in run.outcome]
        words = " ".join(said)
        parts.append(f'<div class="verdict">{paragraph(_titled(run, runs, words))}</div>')
    parts += [heading("Training"), *curves(runs), *more, *figures(runs)]
    for run in runs:
        parts += data(run, runs)
    parts += settings(runs)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"
    return page(f"Report of {title}", *parts)


def _titled(run: Files, runs: Sequence[Files], words: str) -> str:
    return words if len(runs) == 1 else f"{run.name}: {words}"


def curves(runs: Sequence[Files]) -> list[str]:
    """Draw a chart for each kind of figure that some run has."""
    charts = []
    for title, (names, note) in CURVES.items():
        lines = {}
        for run in runs:
            for name in names:
                line = [(row["step"], row[name]) for row in run.log if _number(row.get(name))]
                short = SHORT.get(name, name)
                words = [run.name] * (len(runs) > 1) + [short] * (len(names) > 1)
                lines[" ".join(words)] = line
        charts.append(chart(title, lines, note=note))
    return [f'<div class="charts">{"".join(charts)}</div>']


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def figures(runs: Sequence[Files]) -> list[str]:
    """Lay out evaluation tables with baselines and intervals."""
    parts: list[str] = []
    for run in runs:
        for record in run.records:
            baselines = record.get("baselines", {})
            head = ["figure", "value [95 % interval]", *baselines, "margin"]
            rows = []
            for name, value in record["figures"].items():
                others = [_cell(baseline.get(name)) for baseline in baselines.values()]
                margin = _cell(record.get("margins", {}).get(name))
                rows.append([name, _cell(value), *others, margin])
            facts = ", ".join(f"{key} {value}" for key, value in record["facts"].items())
            parts += [
                heading(_titled(run, runs, record["tool"])),
                *(paragraph(f"Warning: {words}") for words in record.get("warnings", [])),
                table(head, rows),
                paragraph(facts),
            ]
    return parts


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return "" if value is None else f"{value:.4g}"


def data(run: Files, runs: Sequence[Files]) -> list[str]:
    """List facts about its images: unreadable ones, leaks, and the audit."""
    rows = [("images of training", str(run.config.get("data", "")))]
    rows.append(("cannot be read", str(len(run.bad))))
    leaked = {
        f"{record['tool']}: {key}": value
        for record in run.records
        for key, value in record["facts"].items()
        if key.startswith("leaked")
    }
    rows += [(key, str(value)) for key, value in leaked.items()]
    audit = run.config.get("audit")
    if audit:
        rows += _audit_rows(Path(str(audit)))
    else:
        rows.append(("duplicates, huge images", "not checked; selfsup audit does"))
    parts = [heading(_titled(run, runs, "Data")), table(["", ""], rows)]
    if run.bad:
        parts.append(table(["image that cannot be read", "why"], run.bad[:200]))
    return parts


def _audit_rows(file: Path) -> list[tuple[str, str]]:
    from selfsup.data.audit import read_audit
    from selfsup.report.audit import summary

    try:
        return summary(read_audit(file))
    except UserError as error:
        return [("audit", str(error))]


def settings(runs: Sequence[Files]) -> list[str]:
    """Lay out command, versions and configuration; of several runs also where they differ."""
    parts: list[str] = []
    if len(runs) > 1:
        configs = [flat(run.config) for run in runs]
        names_of_settings = dict.fromkeys(key for config in configs for key in config)
        keys = [k for k in names_of_settings if len({str(c.get(k)) for c in configs}) > 1]
        rows = [[key, *(str(config.get(key, "")) for config in configs)] for key in keys]
        names = [run.name for run in runs]
        parts += [heading("Where their settings differ"), table(["setting", *names], rows)]
    for run in runs:
        parts.append(heading(_titled(run, runs, "Settings")))
        if run.about:
            parts.append(table(["", ""], run.about.items()))
        parts.append(preformatted(yaml.safe_dump(run.config, sort_keys=False)))
    return parts
