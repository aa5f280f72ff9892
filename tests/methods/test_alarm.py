"""The alarm: signs of runs that were measured, and what is said of each."""

import math
from typing import Any

import pytest

from selfsup.config import EncoderConfig, PairsConfig, ProxiesConfig, TripletConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder, build
from selfsup.methods.health import ALARM, Remedies, change, diagnose
from selfsup.methods.pair_ranking import PairRanking
from selfsup.methods.proxy_ranking import ProxyRanking
from selfsup.methods.triplet_ranking import Triplet

TRIPLETS = Remedies("--miner semi-hard", ("a larger --method.margin", "a harder --miner"))

BEGUN: dict[str, Any] = {
    **{"std": 0.6, "rank": 40.0, "cosine": 0.5, "gap": 0.4, "nearest": 0.3},
    **{"positive": 0.5, "negative": 0.6, "active": 1.0, "skipped": 0.0, "relative_loss": 1.3},
}


def network() -> Encoder:
    return build(EncoderConfig(name="test_resnet"), 16)


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
    dull = diagnose(BEGUN, now(active=0.0), 64, TRIPLETS).advice
    assert "larger --method.margin, a harder --miner" in dull
    learnt = diagnose(BEGUN, now(active=0.0, nearest=0.99), 64, TRIPLETS).advice
    assert "End the run, or try a larger --method.margin" in learnt


def test_a_loss_above_that_of_equal_rows_is_a_hint_and_no_alarm() -> None:
    found = diagnose(BEGUN, now(gap=0.6, relative_loss=1.2), 64, TRIPLETS)
    assert found.state == "healthy"
    assert "1.20 of that of equal embeddings" in found.advice
    assert "--miner semi-hard" in found.advice
    for quiet in ({"relative_loss": 0.8}, {"active": 0.9}, {"active": 0.5}):
        assert diagnose(BEGUN, now(gap=0.6, **quiet), 64, TRIPLETS).advice == ""


def test_advice_names_what_the_method_has() -> None:
    ranking = diagnose(BEGUN, now(gap=0.1), 64, TRIPLETS).advice
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


def test_a_run_without_a_gap_is_judged_by_its_first_spread_and_rank() -> None:
    first = {"std": 0.95, "rank": 118.0, "cosine": 0.1}

    def told(**changes: float) -> str:
        return diagnose(first, [first | changes] * 3, 256).state

    assert told(std=0.004, cosine=0.99998, rank=3.0) == "collapsed"
    assert told(std=0.099) == "collapsed"
    assert told(std=0.101) == "healthy"
    assert told(rank=29.0) == "collapsing"
    assert told(rank=30.0) == "healthy"
    low = first | {"std": 0.2}  # a quarter of it is 0.05
    assert diagnose(low, [low | {"std": 0.06}] * 3, 256).state == "healthy"
    assert diagnose(low, [low | {"std": 0.04}] * 3, 256).state == "collapsed"
    assert diagnose(first, [first | {"std": 0.004}] * 2, 256).state == "healthy"  # too few


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.18, 1.0])
@pytest.mark.parametrize("std", [0.003, 0.01, 0.019])
def test_equal_rows_without_a_gap_are_a_collapse_whatever_the_first_gap(
    gap: float, std: float
) -> None:
    first = BEGUN | {"gap": gap}
    ended = [first | {"std": std, "cosine": 0.99999, "gap": 0.001}] * 3
    assert diagnose(first, ended, 64).state == "collapsed"
    assert diagnose(first, [first | {"std": std, "gap": 1.5}] * 3, 64).state == "healthy"
    begun_so = first | {"std": std * 1.5}  # no nearer than at first
    assert diagnose(begun_so, [begun_so | {"gap": max(gap, 0.1)}] * 3, 64).state == "healthy"


def test_gaps_below_a_twentieth_are_noise_in_every_batch() -> None:
    first = BEGUN | {"gap": 0.06}
    assert change(first, [BEGUN | {"gap": 0.0}] * 3, 4096).lost == pytest.approx(math.log(1.2))


def test_classes_far_apart_cannot_lose_what_is_beyond_ten_deviations() -> None:
    exact = BEGUN | {"gap": 1000.0, "rank": 40.0}
    assert diagnose(exact, [exact | {"gap": 12.0}] * 3, 64).state == "healthy"


@pytest.mark.parametrize(
    ("images", "width", "rank", "ill"),
    [
        *((64, 1, 1.0, False), (64, 2, 1.9, False), (64, 2, 1.01, False), (2, 128, 1.0, False)),
        *((3, 128, 1.7, False), (4, 128, 1.7, False), (4, 128, 1.4, True), (64, 3, 1.4, True)),
        *((64, 128, 1.9, True), (5, 128, 1.9, True)),
    ],
)
def test_few_images_or_dimensions_have_few_directions(
    images: int, width: int, rank: float, ill: bool
) -> None:
    first = {"std": 0.9, "rank": rank, "cosine": 0.0}
    assert (diagnose(first, [first], images, width=width).state == "collapsing") == ill


def test_a_batch_of_one_image_has_no_spread_to_lose() -> None:
    one = {"std": 0.0, "rank": 1.0, "cosine": 0.0}
    assert diagnose(one, [one], 1, width=8).state == "healthy"


@pytest.mark.parametrize("active", [(0.3, 0.2, 0.0), (0.0, 0.2, 0.1), (0.0,), (0.0, 0.0)])
def test_one_batch_without_a_gradient_does_not_starve(active: tuple[float, ...]) -> None:
    reports = [BEGUN | {"active": share} for share in active]
    assert diagnose(BEGUN, reports, 64).state == "healthy"


def test_most_batches_without_a_gradient_starve() -> None:
    reports = [BEGUN | {"active": share} for share in (0.0, 0.0, 0.2)]
    assert diagnose(BEGUN, reports, 64).state == "starving"


def test_classes_count_as_known_from_seven_tenths_on() -> None:
    def memorised(nearest: float) -> float:
        first = BEGUN | {"nearest": nearest}
        return change(first, [first | {"rank": 20.0}] * 3, 64).memorised

    assert memorised(0.7) == pytest.approx(-0.3)
    assert memorised(0.85) == pytest.approx(5 * 0.5 * 0.5 - 0.3)
    assert memorised(1.0) == pytest.approx(5 * 0.5 - 0.3)


@pytest.mark.parametrize(("images", "share"), [(8, 1.0), (16, 0.9), (32, 0.8)])
def test_a_few_right_neighbours_are_no_proof_that_classes_were_known(
    images: int, share: float
) -> None:
    first = BEGUN | {"nearest": share}
    points = [first | {"rank": 10.0, "gap": 8.0, "nearest": 1.0}] * 24
    assert diagnose(first, points, images).state == "healthy"
    assert diagnose(first | {"nearest": 0.95}, points, 64).state == "memorising"


def test_no_advice_names_a_setting_that_the_method_does_not_have() -> None:
    for signs in ({"gap": 0.1}, {"active": 0.0}, {"active": 0.0, "nearest": 0.99}):
        advice = diagnose(BEGUN, now(**signs), 64).advice
        assert advice
        assert "--miner" not in advice
        assert "--method" not in advice
    assert diagnose(BEGUN, now(gap=0.6, relative_loss=1.2), 64).advice == ""


NO_STEP = StepInfo(0, 100, 0)


@pytest.mark.parametrize(
    ("settings", "easier", "harder"),
    [
        ({}, False, "a larger --method.margin, a harder --miner"),
        ({"miner": "batch-hard"}, True, "a larger --method.margin"),
        ({"miner": "batch-hard", "loss": "soft"}, True, ""),
        ({"miner": "semi-hard-all"}, False, "a larger --method.margin, a harder --miner"),
        ({"miner": "batch-hard", "loss": "angular"}, True, "a smaller --method.degrees"),
        ({"miner": "batch-hard", "first": "semi-hard"}, False, "a larger --method.margin, a hard"),
    ],
)
def test_triplets_are_told_of_miners_that_they_do_not_have(
    settings: dict[str, Any], easier: bool, harder: str
) -> None:
    remedies = Triplet(network(), TripletConfig(dim=4, **settings)).remedies(NO_STEP)
    assert remedies.easier == ("--miner semi-hard" if easier else "")
    assert ", ".join(remedies.harder).startswith(harder)
    assert bool(remedies.harder) == bool(harder)


def test_pairs_are_told_of_their_own_miner_and_proxies_of_none() -> None:
    mined = PairsConfig(dim=4, miner="multi-similarity")
    remedies = PairRanking(network(), mined).remedies(NO_STEP)
    assert remedies == Remedies(harder=("a larger --method.epsilon", "--miner all"))
    assert PairRanking(network(), PairsConfig(dim=4)).remedies(NO_STEP) == Remedies()
    proxies = ProxyRanking(network(), ProxiesConfig(dim=4), classes=3)
    assert proxies.remedies(NO_STEP) == Remedies()
