"""The triplet method: what it reports of a batch is of the triplets that its loss looks at."""

import math

import pytest
import torch
from torch import Tensor, nn

from selfsup.config import MemoryConfig, TripletConfig
from selfsup.core.seeds import StepInfo
from selfsup.encoders.encoder import Encoder
from selfsup.methods.health import diagnose
from selfsup.methods.method import OneView
from selfsup.methods.triplet_ranking import Triplet

NOW = StepInfo(step=5, total=10, seed=0)
LABELS = torch.tensor([0, 0, 1, 1])
APART = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])  # two classes at a right angle


class Rows(nn.Module):
    """Stands for a timm model of two features."""

    num_classes = 2


def method(**settings: object) -> Triplet:
    chosen = {"miner": "batch-hard", **settings}
    return Triplet(Encoder(Rows()), TripletConfig(dim=2, **chosen))  # type: ignore[arg-type]


def signs(ranking: Triplet, x: Tensor, labels: Tensor = LABELS) -> dict[str, float]:
    return ranking.signs(OneView(x), labels, NOW)


def test_classes_far_apart_have_nothing_active() -> None:
    for miner in ("batch-hard", "batch-all", "semi-hard", "semi-hard-all"):
        figures = signs(method(miner=miner), APART)
        assert figures["active"] == 0, miner
        assert figures["positive"] < 0.02
        assert figures["negative"] == pytest.approx(math.sqrt(2), abs=0.02)


def test_mixed_classes_are_active_and_their_loss_is_above_that_of_equal_rows() -> None:
    mixed = torch.tensor([0, 1, 0, 1])
    figures = signs(method(), APART, mixed)
    assert figures["active"] == 1
    assert figures["skipped"] == 0
    # hardest positive at about sqrt 2, nearest negative at about 0.01
    assert figures["relative_loss"] == pytest.approx((math.sqrt(2) - 0.01 + 0.2) / 0.2, abs=0.1)
    assert signs(method(miner="batch-all"), APART, mixed)["active"] == 1


@pytest.mark.parametrize("miner", ["semi-hard", "semi-hard-all", "easy-positive", "hard-positive"])
def test_a_soft_margin_of_semi_hard_triplets_is_active_and_does_not_starve(miner: str) -> None:
    ranking = method(loss="soft", miner=miner, margin=0.5)
    angles = torch.tensor([0.0, 0.3, 0.5, 0.9])
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    figures = signs(ranking, rows, torch.tensor([0, 0, 1, 1]))
    assert ranking.loss(OneView(rows), torch.tensor([0, 0, 1, 1]), NOW) > 0
    assert figures["active"] == 1
    assert diagnose(figures, [figures] * 60, 4, ranking.remedies(NOW), width=2).state == "healthy"


@pytest.mark.parametrize("miner", ["batch-hard", "batch-all", "random", "semi-hard"])
def test_a_soft_margin_starves_only_where_there_is_no_triplet(miner: str) -> None:
    ranking = method(loss="soft", miner=miner)
    figures = signs(ranking, APART)
    assert figures["active"] == 0
    state = diagnose(figures, [figures] * 60, 4, ranking.remedies(NOW), width=2).state
    assert state == ("starving" if figures["skipped"] == 1 else "healthy")
    assert (figures["skipped"] == 1) == (miner == "semi-hard")


def test_an_angular_hinge_of_nothing_is_seen_to_starve() -> None:
    ranking = method(loss="angular")
    assert ranking.loss(OneView(APART), LABELS, NOW) == 0
    figures = signs(ranking, APART)
    assert figures["active"] == 0
    assert "relative_loss" not in figures


def test_negatives_in_the_memory_count_as_active() -> None:
    ranking = method(memory=MemoryConfig(size=4, start=0.0))
    assert signs(ranking, APART)["active"] == 0
    ranking.after_step(OneView(APART), torch.tensor([7, 7, 7, 7]), NOW)  # others, right there
    assert ranking.loss(OneView(APART), LABELS, NOW) > 0
    assert signs(ranking, APART)["active"] > 0.9


def test_before_its_start_a_memory_is_not_looked_at() -> None:
    ranking = method(memory=MemoryConfig(size=4, start=0.6))
    ranking.after_step(OneView(APART), torch.tensor([7, 7, 7, 7]), NOW)
    assert ranking.loss(OneView(APART), LABELS, NOW) == 0
    assert ranking.loss(OneView(APART), LABELS, NOW._replace(step=6)) > 0


def test_the_first_miner_hands_over_at_the_switch() -> None:
    ranking = method(first="semi-hard", miner="batch-hard", switch=0.5, margin=0.01)
    mixed = torch.tensor([0, 1, 0, 1])
    assert ranking.loss(OneView(APART), mixed, NOW._replace(step=4)) < 0.02
    assert ranking.loss(OneView(APART), mixed, NOW) > 1


@pytest.mark.parametrize("miner", ["batch-hard", "batch-all", "semi-hard-all", "random"])
def test_embeddings_that_are_no_numbers_show_in_the_loss(miner: str) -> None:
    broken = APART * torch.tensor([[1.0], [math.nan], [1], [1]])
    assert not method(miner=miner).loss(OneView(broken), LABELS, NOW).isfinite()


def test_a_head_that_is_there_is_kept_unless_another_width_is_asked_for() -> None:
    class Model(nn.Module):
        num_classes = 0
        widths: tuple[int, ...] = ()

        def reset_classifier(self, dim: int) -> None:
            self.num_classes = dim
            self.widths = (*self.widths, dim)

    encoder = Encoder(Model())
    for asked, width in ((0, 0), (None, 128), (None, 128), (32, 32), (None, 32)):
        encoder.set_head(asked)
        assert encoder.model.num_classes == width
    assert encoder.model.widths == (128, 32)
    with pytest.raises(ValueError, match="must be 0 or more"):
        encoder.set_head(-1)
