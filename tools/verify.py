"""Are two images of the same thing: error rates, and the threshold to use.

python tools/verify.py --model runs/triplet --data products/
python tools/verify.py --model runs/triplet --data faces/ --pairs pairs.csv --keep 0.001
"""

from typing import TYPE_CHECKING

from selfsup.config import VerifyConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.data.sources import Source
    from selfsup.evaluate.features import Features
    from selfsup.evaluate.model import Subject
    from selfsup.evaluate.results import Measured


def main(config: VerifyConfig) -> None:
    """Embed, compare pairs, report."""
    from selfsup.core.errors import require
    from selfsup.evaluate.model import embed, source_of
    from selfsup.evaluate.results import judge

    require(
        all(0 <= far < 1 for far in (*config.far, config.keep)),
        "--far and --keep must be at least 0 and below 1",
    )

    def look(subject: "Subject") -> "tuple[Source, Features]":
        source = source_of(subject, config.data, config.split, config)
        require(
            source.labels is not None or bool(config.pairs),
            f"{config.data} has no labels: give --pairs",
        )
        return source, embed(subject, source, config)

    judge("verify", config, look, lambda seen: measure(*seen, config))


def measure(source: "Source", features: "Features", config: VerifyConfig) -> "Measured":
    """Rates over all thresholds, at the false accept rates that were asked for, and by folds."""
    from selfsup.core.numerics import normalize
    from selfsup.evaluate.results import Measured
    from selfsup.evaluate.verification import Curve, fold_accuracies, label_pairs

    unread = 0
    if config.pairs:
        pairs, same, unread = listed_pairs(config.pairs, source, features)
    else:
        pairs, same = label_pairs(features.labels, most=config.most, seed=config.seed)
    z = normalize(features.x)
    similar = (z[pairs[:, 0]] * z[pairs[:, 1]]).sum(1)
    curve = Curve(similar, same)
    numbers = {"AUC": curve.auc, "EER": curve.eer}
    facts = {"pairs of one label": int(same.sum()), "of two": int((~same).sum())}
    for far in config.far:
        numbers[f"TAR at FAR {far:g}"] = curve.at_far(far).tar
        if far and far * int((~same).sum()) < 10:
            facts[f"few pairs of two for FAR {far:g}"] = int((~same).sum())
    kept = curve.at_far(config.keep)
    values = {}
    if len(pairs) >= config.folds >= 2:
        # pairs are listed by kind: without mixing, folds would differ in their share of each
        mixed = mix(len(pairs), config.seed)
        values["accuracy by folds"] = fold_accuracies(similar[mixed], same[mixed], config.folds)
    told = {
        "threshold": kept.threshold,
        "its FAR": round(kept.far, 6),
        "its TAR": round(kept.tar, 6),
        "unreadable": features.bad + unread,
    }
    return Measured(values, facts | told, numbers)


def mix(n: int, seed: int) -> "Tensor":
    """An order of pairs, by seed."""
    import torch

    from selfsup.core.seeds import generator

    return torch.randperm(n, generator=generator(seed, 0, "pairs"))


def listed_pairs(file: str, source: "Source", features: "Features") -> "tuple[Tensor, Tensor, int]":
    """Rows of the features that a file pairs, whether they are the same, and how many it lost.

    Raises:
        UserError: the file cannot be read, or names images that the data do not have.
    """
    import csv
    from pathlib import Path

    import torch

    from selfsup.core.errors import UserError, did_you_mean

    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read --pairs {file}: {error}") from None
    if not rows or not {"first", "second", "same"} <= rows[0].keys():
        raise UserError(f"{file} must have columns first, second and same, and a row for each pair")
    place = {source.name(i): i for i in range(len(source))}
    row_of = {position: row for row, position in enumerate(features.positions.tolist())}
    pairs, same, lost = [], [], 0
    for number, row in enumerate(rows, start=2):
        for name in (row["first"], row["second"]):
            if name not in place:
                near = did_you_mean(str(name), place)
                raise UserError(f"{file}, line {number}: the data have no image {name!r}{near}")
        if row["same"] not in ("0", "1"):
            raise UserError(f"{file}, line {number}: same must be 1 or 0, not {row['same']!r}")
        rows_of_pair = [row_of.get(place[row[side]]) for side in ("first", "second")]
        if None in rows_of_pair:
            lost += 1  # one of them could not be read
            continue
        pairs.append(rows_of_pair)
        same.append(row["same"] == "1")
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2), torch.tensor(same), lost


def command() -> None:
    """Run from the command line."""
    launch(main, VerifyConfig)


if __name__ == "__main__":
    command()
