"""The report of a run, or of several side by side: one page from the files in their folders."""

import contextlib
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from selfsup.core.errors import UserError
from selfsup.core.json_files import read_json
from selfsup.core.json_lines import read_steps
from selfsup.core.paths import run_in
from selfsup.core.progress import SHORT
from selfsup.core.words import counted
from selfsup.core.yaml_files import read_yaml
from selfsup.report.comparison import compared, side_by_side_figures
from selfsup.report.curves import chart
from selfsup.report.figures import figures
from selfsup.report.page import (
    Section,
    Verdict,
    facts,
    folded,
    heading,
    page,
    paragraph,
    preformatted,
    side_by_side,
    table,
)
from selfsup.report.seen import trained_on
from selfsup.report.verdict import Record, verdict
from selfsup.training.same_work import flat

SHARE = (0.0, 1.0)


class Curve(NamedTuple):
    """A chart of the log."""

    names: tuple[str, ...]
    """Figures of the log."""
    note: str = ""
    """For the reader."""
    within: tuple[float, float] | None = None
    """Lowest and highest possible value."""


CURVES = {
    "Loss": Curve(("loss",)),
    "Gap": Curve(
        ("gap",), "how many standard deviations negatives are beyond positives; higher is better"
    ),
    "Nearest": Curve(
        ("nearest",), "fraction whose nearest image is of its class, or its own other view", SHARE
    ),
    "Spread": Curve(
        ("std", "cosine"),
        "std 1: spread evenly; std 0 or cosine 1: all embeddings are equal",
        (-1.0, 1.0),
    ),
    "Rank": Curve(("rank",), "number of directions that embeddings use"),
    "k-NN during training": Curve(("knn",), "leave-one-out accuracy", SHARE),
    "Validation": Curve(("map_at_r", "recall_at_1"), "of images that training does not see", SHARE),
    "Forgetting": Curve(
        ("kept_map_at_r", "kept_recall_at_1", "kept_knn"),
        "the same figures of --probe.keep",
        SHARE,
    ),
    "Active": Curve(("active",), "fraction of triplets or pairs with a loss", SHARE),
    "Distances": Curve(("positive", "negative"), "of images of one label and of two"),
    "Teacher": Curve(("distil",), "loss of distillation alone, beside a ranking loss"),
    "Learning rate": Curve(("lr",)),
    "Images a second": Curve(("images_per_s",)),
    "Waiting for data": Curve(("waiting",), "fraction of the time", SHARE),
}
"""By title."""


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


@dataclass(frozen=True)
class ImageParts:
    """What a report shows of a run's images, as HTML."""

    learnt: list[str] = field(default_factory=list)
    """Neighbours and a map."""
    failures: list[str] = field(default_factory=list)
    """Worst queries, confusions, suspected labels."""
    views: list[str] = field(default_factory=list)
    """Views as the method saw them."""


def report(runs: Sequence[Files], images: ImageParts | None = None, *, title: str = "") -> str:
    """Lay out the page of a run as a story, or a comparison of several runs.

    Args:
        runs: their files.
        images: what is shown of the images of a single run.
        title: of the page; by default the run's name.
    """
    if len(runs) > 1:
        return _comparison(runs)
    (run,) = runs
    images = images or ImageParts()
    seen = trained_on(run.config)
    measured = figures(run.name, run.records, seen)
    parts = [
        Section("Is it good?", measured or [paragraph(_judged(run).sentences[0])]),
        Section("What has it learnt?", images.learnt),
        Section("Where does it fail?", images.failures),
        Section("How did training go?", curves(runs)),
        Section("What were the images?", [*data(run), *images.views]),
        Section("How was it made?", settings(runs)),
    ]
    shown = [part for part in parts if part.elements]
    return page(title or run.name, *shown, kind="Report", verdict=_judged(run))


def _judged(run: Files) -> Verdict:
    init = str(run.config.get("init") or "")
    seen = trained_on(run.config)
    told = [] if run.unfinished else [f"{s[0].upper()}{s[1:]}." for s in run.outcome]
    return verdict(run.log, run.records, init=init, unfinished=run.unfinished, more=told, seen=seen)


def _comparison(runs: Sequence[Files]) -> str:
    names = [run.folder.name for run in runs]
    runs = [r if names.count(r.folder.name) == 1 else replace(r, name=str(r.folder)) for r in runs]
    records = {run.name: run.records for run in runs}
    alone = [_alone(run) for run in runs]
    return page(
        f"{len(runs)} runs side by side",
        Section("Which is better?", side_by_side_figures(records)),
        Section("Each by itself", [side_by_side(*alone)]),
        Section("How did training go?", curves(runs)),
        Section("What were the images?", [part for run in runs for part in data(run, run.name)]),
        Section("How were they made?", settings(runs)),
        kind="Comparison",
        verdict=compared(records),
    )


def _alone(run: Files) -> str:
    """Write a run's verdict beside baselines: each sentence begins with its name for a reader."""
    judged = _judged(run)
    return heading(run.name) + paragraph(f"{judged.words}. {' '.join(judged.sentences)}")


def curves(runs: Sequence[Files]) -> list[str]:
    """Draw a chart for each kind of figure that some run has."""
    charts = []
    for title, curve in CURVES.items():
        lines = {}
        for run in runs:
            for name in curve.names:
                line = [(row["step"], row[name]) for row in run.log if _number(row.get(name))]
                short = SHORT.get(name, name)
                words = [run.name] * (len(runs) > 1) + [short] * (len(curve.names) > 1)
                lines[" ".join(words)] = line
        charts.append(chart(title, lines, note=curve.note, within=curve.within))
    if not any(charts):
        return [paragraph("There is no log of its training.")]
    return [f'<div class="charts">{"".join(charts)}</div>']


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def data(run: Files, name: str = "") -> list[str]:
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
    parts = [heading(name) if name else "", facts(rows)]
    if run.bad:
        listed = table(["image that cannot be read", "why"], run.bad[:200])
        parts.append(folded(f"{counted(len(run.bad), 'image')} that cannot be read", listed))
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
        if len(runs) > 1:
            parts.append(heading(run.name))
        if run.about:
            parts.append(folded("Command and versions", facts(run.about.items())))
        text = yaml.safe_dump(run.config, sort_keys=False)
        parts.append(folded("All settings", preformatted(text)))
    return parts
