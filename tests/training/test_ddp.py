"""What two processes send each other at a forward pass, and what they need not."""

import json
from typing import Any

import pytest
from launch import ROOT, run, torchrun

SENT = {
    "moco-v2/group": {"queue.rows", "queue.labels", "queue.added"},
    "dino/group": {"teacher_prototypes", "centre"},
    "tico/group": {"second_moment"},
    "triplet+distil/group": {
        "ranking.memory.rows",
        "ranking.memory.labels",
        "ranking.memory.added",
    },
    "byol copied/batch": set[str](),
}
"""The buffers that are equal by construction, of a case of each kind."""


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    done = run(*torchrun(2), ROOT / "tests" / "workers" / "buffers.py", *SENT)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("case", SENT)
def test_buffers_that_are_equal_without_it_are_not_sent(results: dict[str, Any], case: str) -> None:
    assert set(results[case]["not sent"]) == SENT[case]
    assert not SENT[case] & set(results[case]["differ"])


@pytest.mark.slow
def test_running_statistics_are_still_sent(results: dict[str, Any]) -> None:
    sent = results["byol copied/batch"]["sent"]
    assert any(name.startswith("encoder.") and name.endswith("running_mean") for name in sent)
    assert any(name.startswith("teacher.") and name.endswith("running_var") for name in sent)


@pytest.mark.slow
def test_before_features_are_extracted_running_statistics_become_those_of_the_main_process(
    results: dict[str, Any],
) -> None:
    probe = results["probe"]
    assert any(name.endswith("running_mean") for name in probe["before"])
    assert probe["after"] == probe["features"] == []


@pytest.mark.slow
def test_hosts_gather_labels_by_a_group_of_their_own_beside_one_of_gpus(
    results: dict[str, Any],
) -> None:
    assert results["hosts"] == [0, 1, 10, 11]
