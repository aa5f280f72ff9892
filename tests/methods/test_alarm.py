"""The alarm: signs of runs that were measured, and what is said of each."""

import math
from typing import Any

import pytest

from selfsup.methods.health import ALARM, change, diagnose

BEGUN: dict[str, Any] = {
    **{"std": 0.6, "rank": 40.0, "cosine": 0.5, "gap": 0.4, "nearest": 0.3},
    **{"positive": 0.5, "negative": 0.6, "active": 1.0, "skipped": 0.0, "relative_loss": 1.3},
}


def now(**changes: float) -> list[dict[str, Any]]:
    return [BEGUN | changes] * 3


def state(**changes: float) -> str:
    return diagnose(BEGUN, now(**changes), 64).state


def test_a_run_whose_gap_grows_is_healthy_however_near_its_embeddings_are() -> None:
    assert state(gap=0.5, std=0.05) == "healthy"  # searched better than before, when measured
    assert state(gap=1.8, std=0.95) == "healthy"


def test_a_gap_that_falls_is_named_with_both_values() -> None:
    flat = diagnose(BEGUN, now(gap=0.1, std=0.01), 64)
    assert flat.state == "collapsed"
    assert "0.10 deviations beyond positives, 0.40 at first" in flat.advice
    assert "std 0.010 of 1" in flat.advice
    wide = diagnose(BEGUN, now(gap=0.1), 64)
    assert wide.state == "collapsing"
    assert "nearly equal" not in wide.advice


def test_the_median_of_three_reports_is_judged() -> None:
    one_bad = [BEGUN | {"gap": gap} for gap in (0.5, 0.01, 0.6)]
    assert diagnose(BEGUN, one_bad, 64).state == "healthy"
    assert diagnose(BEGUN, one_bad[1:2], 64).state == "healthy"  # too few to judge
    assert (
        diagnose(BEGUN, [BEGUN | {"gap": gap} for gap in (0.5, 0.01, 0.02)], 64).state != "healthy"
    )


def test_the_score_is_the_logarithm_of_what_was_lost() -> None:
    assert change(BEGUN, now(gap=0.2), 64).lost == pytest.approx(math.log(2))
    edge = 0.4 * math.exp(-ALARM)
    assert state(gap=edge * 1.01) == "healthy"
    assert state(gap=edge * 0.99) == "collapsing"


def test_a_run_that_began_without_a_gap_cannot_lose_it() -> None:
    first = BEGUN | {"gap": 0.01}
    assert diagnose(first, now(gap=-0.2), 64).state == "healthy"


def test_equal_rows_and_a_line_are_seen_at_once() -> None:
    assert diagnose(BEGUN, [BEGUN | {"std": 1e-6}], 64).state == "collapsed"
    thin = diagnose(BEGUN, [BEGUN | {"rank": 1.8}], 64)
    assert thin.state == "collapsing"
    assert "1.8 directions" in thin.advice


def test_classes_that_were_known_and_become_points_are_learnt_by_heart() -> None:
    known = BEGUN | {"nearest": 0.95, "gap": 2.0, "rank": 35.0}
    points = [known | {"gap": 8.0, "rank": 14.0, "nearest": 1.0}] * 3
    found = diagnose(known, points, 64)
    assert found.state == "memorising"
    assert "95% of the batch" in found.advice
    assert "35 to 14" in found.advice
    unknown = BEGUN | {"nearest": 0.4, "gap": 2.0, "rank": 35.0}
    assert diagnose(unknown, points, 64).state == "healthy"
    unlabelled = {k: v for k, v in known.items() if k not in ("positive", "negative")}
    assert diagnose(unlabelled, points, 64).state == "healthy"


def test_a_batch_without_a_gradient_starves_and_a_learnt_one_may_end() -> None:
    assert state(active=0.0) == "starving"
    assert state(active=0.01) == "healthy"
    assert "larger --method.margin, a harder --miner" in diagnose(BEGUN, now(active=0.0), 64).advice
    learnt = diagnose(BEGUN, now(active=0.0, nearest=0.99), 64).advice
    assert "End the run" in learnt


def test_a_loss_above_that_of_equal_rows_is_a_hint_and_no_alarm() -> None:
    found = diagnose(BEGUN, now(gap=0.6, relative_loss=1.2), 64)
    assert found.state == "healthy"
    assert "1.20 of that of equal embeddings" in found.advice
    assert "--miner semi-hard" in found.advice
    assert diagnose(BEGUN, now(gap=0.6, relative_loss=0.8), 64).advice == ""


def test_advice_names_what_the_method_has() -> None:
    ranking = diagnose(BEGUN, now(gap=0.1), 64).advice
    first = {k: v for k, v in BEGUN.items() if k != "skipped"}
    other = diagnose(first, [first | {"gap": 0.1}] * 3, 64).advice
    assert "--miner semi-hard" in ranking
    assert "--miner" not in other
    assert "a quarter of --optim.lr" in other


def test_a_log_of_an_older_version_is_judged_by_what_it_has() -> None:
    old = {"std": 0.9, "rank": 30.0, "cosine": 0.0}
    assert diagnose(old, [old] * 3, 64).state == "healthy"
    assert diagnose(old, [old | {"std": 0.0}] * 3, 64).state == "collapsed"


def test_small_batches_are_judged_by_more_reports_and_their_small_gaps_are_noise() -> None:
    first, fallen = BEGUN | {"gap": 0.6}, BEGUN | {"gap": 0.1}
    assert diagnose(first, [fallen] * 7, 24).state == "healthy"  # 8 reports are judged
    assert diagnose(first, [fallen] * 8, 24).state == "collapsing"
    assert diagnose(first, [fallen] * 48, 4).state == "healthy"
