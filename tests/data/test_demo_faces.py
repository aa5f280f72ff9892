"""The demonstration's photographs: two groups of people, made from the seed alone."""

from pathlib import Path

import numpy as np

from selfsup.data.demo_faces import write_demo_faces


def test_train_and_test_have_other_people_and_follow_from_the_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train, test = (
        dict(np.load(file)) for file in write_demo_faces(tmp_path / "a", side=32, seed=1)
    )
    assert train["images"].shape == (240, 112, 92, 3)
    assert test["images"].shape == (160, 32, 32, 3)
    people = [set(x["labels"].tolist()) for x in (train, test)]
    assert [len(p) for p in people] == [24, 16]
    assert not people[0] & people[1]
    assert (np.bincount(test["labels"])[list(people[1])] == 10).all()
    _, again = write_demo_faces(tmp_path / "b", side=32, seed=1)
    assert np.array_equal(np.load(again)["images"], test["images"])
    _, other = write_demo_faces(tmp_path / "b", side=32, seed=2)
    assert not np.array_equal(np.load(other)["labels"], test["labels"])
