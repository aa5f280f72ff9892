"""Check this machine's packages and devices, and every method's gradient. About a minute.

    selfsup doctor
    selfsup doctor --only byol --json

First packages and devices. Then the certificate: each method's gradient on one or two processes
with one or two micro-batches, in float32 and bfloat16, against that of one big batch.
"""

import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from selfsup.doctor.certificate import Line
    from selfsup.doctor.machine import Package


@dataclass(frozen=True, kw_only=True)
class Config:
    """Check packages, devices, and the gradient of every method on several processes."""

    only: str = ""
    """Check only this method; by default all."""
    json: bool = False
    """Print figures as JSON instead of tables."""


def main(config: Config) -> None:
    """Check, print, and exit with status 1 if something is wrong."""
    from selfsup.doctor.machine import devices, packages

    checked = packages()
    usable = not any(p.problem for p in checked if not p.extra)
    only = _method_name(config.only) if usable else ""
    record: dict[str, Any] = {"packages": [p._asdict() for p in checked]}
    if not config.json:
        print(_packages(checked))
    lines: list[Line] = []
    if usable:
        record["devices"] = devices()
        if not config.json:
            rows = (f"  {name:<11}{value}"[:80] for name, value in record["devices"].items())
            print("devices", *rows, sep="\n")
            print("gradients against one big batch (largest relative error of any parameter)")
        try:
            lines = _certificate(only)
        except UserError as error:
            record["error"] = str(error)
        record["certificate"] = [plain(line) for line in lines]
        if not config.json:
            print(_table(lines) if lines else f"  {record['error']}")
    wrong = not usable or not lines or not all(line.passed for line in lines)
    record["passed"] = not wrong
    if config.json:
        print(json.dumps(record, indent=2))
    else:
        print("something is wrong, see above" if wrong else "all is well")
    if wrong:
        sys.exit(1)


def plain(line: "Line") -> dict[str, Any]:
    """For JSON, which has no infinity and no NaN: null in their place."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in line._asdict().items()
    }


def _certificate(only: str) -> "list[Line]":
    from selfsup.doctor.cases import CASES
    from selfsup.doctor.certificate import certificate

    return certificate([only] if only else CASES)


def _method_name(only: str) -> str:
    """Check the name of a method, also written with spaces or underscores."""
    from selfsup.doctor.cases import CASES

    name = only.replace(" ", "-").replace("_", "-")
    if name and name not in CASES:
        raise UserError(f"there is no method {only!r}{did_you_mean(name, CASES)}")
    return name


def _packages(checked: "list[Package]") -> str:
    rows = ["packages"]
    for p in checked:
        extra = f" (for selfsup[{p.extra}])" if p.extra else ""
        what = p.problem or ("" if p.version else "is not installed")
        rows.append(f"  {p.name:<27}{p.version:<14}{what}{extra if what else ''}")
    return "\n".join(row.rstrip() for row in rows)


def _table(lines: "list[Line]") -> str:
    """Format a row for each method: float32 and bfloat16, each 1 x 2, 2 x 1 and 2 x 2."""
    columns = list(dict.fromkeys((x.precision, x.processes, x.micro_batches) for x in lines))
    names = {"no": "fp32", "bf16": "bf16"}
    head = "".join(f"{f'{names[p]} {n}x{m}':>9}" for p, n, m in columns)
    rows = [f"  {'method':<15}{head}"]
    for name in dict.fromkeys(line.method for line in lines):
        results = [line for line in lines if line.method == name]
        cells = "".join(f"{line.error:>9.1e}" for line in results)
        rows.append(f"  {name:<15}{cells}{'' if all(x.passed for x in results) else ' WRONG'}")
    used = " and ".join(f"{n} on {d}" for n, d in sorted({(x.processes, x.device) for x in lines}))
    rows.append(f"  2x1: two processes, one micro-batch each; processes: {used}")
    return "\n".join(rows)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
