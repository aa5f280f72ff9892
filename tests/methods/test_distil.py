"""Distillation: each setting arrives in its formula, and targets are of their images and views."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import distillation as oracle
from oracles import losses as ranking
from small import HALF, encoder, normal
from torch import Tensor, nn

from selfsup.augment.apply import standardize
from selfsup.config import DistilConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.doctor.cases import CASES, FEATURES, QUEUE
from selfsup.doctor.certificate import FIRST, prepare
from selfsup.encoders.encoder import Encoder
from selfsup.methods.distil import (
    Distil,
    Distilled,
    DistilledSimCLR,
    LiveTeacher,
    StoredFeatures,
)

WIDTH = 5  # of the teacher
SMALL: dict[str, Any] = {"hidden": 6, "dim": 8, "norm": "layer"}
STUDENT, TARGET = normal(6, 2, WIDTH, seed=1), normal(6, 1, WIDTH, seed=2)
DIVIDED: dict[str, Any] = {"temperature": 0.3, "teacher_temperature": 0.2}


def distil(images: int = 12, **settings: Any) -> Distil:
    rows = normal(images, WIDTH, seed=3).numpy()
    return Distil(encoder(), DistilConfig(**SMALL, **settings), StoredFeatures(rows)).double()


def both_views(student: Tensor = STUDENT, target: Tensor = TARGET) -> tuple[Any, Any]:
    """Rows of both views, and the target of each."""
    each = target.expand_as(student)
    return student.flatten(0, 1).tolist(), each.flatten(0, 1).tolist()


def test_cosine_and_mse_are_means_over_all_views() -> None:
    cosine = distil(loss="cosine").loss(Distilled(STUDENT, TARGET), None, HALF)
    mse = distil(loss="mse").loss(Distilled(STUDENT, TARGET), None, HALF)
    assert cosine.item() == pytest.approx(oracle.feature_cosine(*both_views()))
    assert mse.item() == pytest.approx(oracle.feature_mse(*both_views()))


def test_relational_compares_images_within_each_view() -> None:
    live = normal(6, 2, WIDTH, seed=4)  # targets of the views themselves
    for target in (TARGET, live):
        value = distil(loss="relational", **DIVIDED).loss(Distilled(STUDENT, target), None, HALF)
        each = target.expand_as(STUDENT)
        views = [
            oracle.relational(STUDENT[:, v].tolist(), each[:, v].tolist(), 0.3, 0.2) for v in (0, 1)
        ]
        assert value.item() == pytest.approx(sum(views) / 2)


def test_the_queue_follows_the_batch_and_keeps_the_first_targets() -> None:
    method = distil(loss="queue", queue=8, **DIVIDED)
    embeddings = Distilled(STUDENT, TARGET)
    batch, rows = TARGET[:, 0].tolist(), both_views()
    alone = oracle.soft_neighbours(*rows, batch, 0.3, 0.2)
    assert method.loss(embeddings, None, HALF).item() == pytest.approx(alone)
    method.after_step(embeddings, None, HALF)
    older = Distilled(STUDENT, normal(6, 1, WIDTH, seed=5))
    method.after_step(older, None, HALF)
    queued = [*batch[-2:], *older.target[:, 0].tolist()]  # eight of twelve
    expected = oracle.soft_neighbours(*rows, [*batch, *queued], 0.3, 0.2)
    assert method.loss(embeddings, None, HALF).item() == pytest.approx(expected)


def test_features_are_learned_along_the_directions_that_the_checkpoint_keeps() -> None:
    rows = normal(12, WIDTH, seed=3)
    directions = torch.linalg.qr(normal(WIDTH, 3, seed=4)).Q
    targets = StoredFeatures(rows.numpy())
    targets.directions = directions
    method = Distil(encoder(), DistilConfig(**SMALL, loss="queue", queue=8), targets).double()
    assert method.head[-1].out_features == method.queue.contents()[0].shape[1] == 3
    student = normal(4, 2, 3, seed=5)
    asked = method.look_up(Distilled(student, student[:, :0]), torch.tensor([7, 0, 7, 3]))
    assert torch.allclose(asked.target[:, 0], rows[[7, 0, 7, 3]] @ directions)
    targets.directions = -directions  # of another run, or with another sign
    again = Distil(encoder(), DistilConfig(**SMALL, loss="queue", queue=8), targets).double()
    again.load_state_dict(method.state_dict())
    first = torch.tensor([7])
    assert torch.equal(again.look_up(asked, first).target, method.look_up(asked, first).target)


def test_a_live_teacher_is_projected_likewise() -> None:
    teacher = live()
    whole = teacher.of_views((normal(4, 1, 3, 8, 8, seed=5),))
    teacher.directions = torch.linalg.qr(normal(teacher.dim, 3, seed=4)).Q
    student = Encoder(Means(), channels_last=False)
    method = Distil(student, DistilConfig(**SMALL), teacher).double()
    seen = method.embed((normal(4, 1, 3, 8, 8, seed=5),)).target
    assert torch.allclose(seen, whole @ teacher.directions)


def test_simclr_is_added_by_its_weight_on_the_first_two_views() -> None:
    projection = normal(6, 3, 8, seed=6)
    student = normal(6, 3, WIDTH, seed=7)
    method = distil(simclr=0.7, simclr_temperature=0.4)
    value = method.loss(DistilledSimCLR(student, TARGET, projection), None, HALF)
    contrast = ranking.nt_xent(projection[:, 0].tolist(), projection[:, 1].tolist(), 0.4)
    followed = oracle.feature_cosine(*both_views(student))
    assert value.item() == pytest.approx(followed + 0.7 * contrast)
    assert (method.negatives(16), distil().negatives(16)) == (30, 0)


def test_stored_features_are_those_of_the_images_less_their_mean() -> None:
    rows = normal(9, WIDTH, seed=1).float()
    rows[4] = 0  # an image that could not be read
    stored = StoredFeatures(rows.numpy(), rows.mean(0))
    positions = torch.tensor([7, 4, 0])
    expected = rows[positions] - rows.mean(0)
    expected[1] = 0
    torch.testing.assert_close(stored.of_images(positions, torch.zeros(1)), expected)
    low = stored.of_images(positions, torch.zeros(1, dtype=torch.bfloat16))
    assert low.dtype == torch.float32


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_each_image_of_a_step_has_its_own_row_of_the_stored_features(micro_batches: int) -> None:
    step, batches = prepare(CASES["distil"], dtype=torch.float64, micro_batches=micro_batches)
    batch = batches[FIRST]
    step.gradient(batch)
    assert isinstance(step.embeddings, DistilledSimCLR)
    expected = torch.from_numpy(FEATURES)[batch.positions]
    torch.testing.assert_close(step.embeddings.target[:, 0], expected)


class Means(nn.Module):
    """Mean and side of each image: what a teacher was shown."""

    num_classes = 4

    def forward(self, x: Tensor) -> Tensor:
        side = torch.full((len(x), 1), float(x.shape[-1]), dtype=x.dtype)
        return torch.cat([x.mean((2, 3)), side], 1)


OWN = ViewsConfig(size=12, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), interpolation="bilinear")
THEIRS = ViewsConfig(size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def live(**more: Any) -> LiveTeacher:
    network = Encoder(Means(), channels_last=False)
    return LiveTeacher(network, OWN, student=THEIRS, images=12, **more)


def test_a_live_teacher_sees_each_view_at_its_own_size_and_normalisation() -> None:
    pixels = torch.rand(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    small = torch.rand(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    seen = tuple(standardize(x, *THEIRS.normalization) for x in (pixels, small))
    features = live().of_views(seen)
    assert features.shape == (3, 3, 4)
    assert features[..., 3].eq(12).all()
    for view, crops in enumerate((pixels[:, 0], pixels[:, 1], small[:, 0])):
        larger = F.interpolate(crops, (12, 12), mode="bilinear", antialias=True)
        expected = standardize(larger, *OWN.normalization).mean((2, 3))
        torch.testing.assert_close(features[:, view, :3], expected, rtol=1e-4, atol=1e-5)
    centred = live(mean=torch.ones(4)).of_views(seen)
    torch.testing.assert_close(centred, features - 1)


def test_a_live_teacher_is_in_no_checkpoint_and_has_no_gradient() -> None:
    teacher = LiveTeacher(encoder(), OWN, student=THEIRS, images=12)
    method = Distil(encoder(), DistilConfig(**SMALL), teacher)
    assert {name.split(".")[0] for name in method.state_dict()} == {"encoder", "head"}
    assert not any(p.requires_grad for p in teacher.encoder.parameters())
    assert not teacher.encoder.training
    method.train()
    assert not teacher.encoder.training


def test_a_single_view_is_enough_and_has_no_second_to_be_compared_with() -> None:
    one = CASES["distil"]._replace(
        views=replace(CASES["distil"].views, views=1),
        make=lambda e: Distil(e, DistilConfig(**SMALL), StoredFeatures(FEATURES)),
    )
    step, batches = prepare(one)
    assert step(batches[FIRST]).isfinite()
    signs = step.method.signs(step.embeddings, None, HALF)
    assert set(signs) == {"std", "rank", "cosine", "agreement"}


def test_simclr_needs_a_second_view() -> None:
    one = replace(CASES["distil"].views, views=1)
    step, batches = prepare(CASES["distil"]._replace(views=one))
    with pytest.raises(UserError, match=r"simclr compares two views; --views\.views is 1, give 2"):
        step(batches[FIRST])


def test_agreement_is_the_cosine_of_the_first_views_to_the_teacher() -> None:
    signs = distil().signs(Distilled(STUDENT, TARGET), None, HALF)
    expected = 1 - oracle.feature_cosine(STUDENT[:, 0].tolist(), TARGET[:, 0].tolist())
    assert signs["agreement"] == pytest.approx(expected)
    assert {"gap", "nearest", "std", "rank"} <= signs.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "--method.temperature must be above 0, not 0"),
        ({"teacher_temperature": -1}, "--method.teacher-temperature must be above 0, not -1"),
        ({"simclr_temperature": 0}, "--method.simclr-temperature must be above 0"),
        ({"simclr": -0.5}, "--method.simclr must be 0 or more, not -0.5"),
        ({"loss": "queue", "queue": 0}, "--method.queue must be above 0"),
        (
            {"loss": "queue", "queue": 13},
            "--method.queue 13 is longer than the data: there are 12 images",
        ),
        ({"head": "mlp", "hidden": 0}, "--method.hidden and --method.dim must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(
    settings: dict[str, Any], message: str
) -> None:
    values = {**SMALL, **settings}
    rows = normal(12, WIDTH).numpy()
    with pytest.raises(UserError, match=message):
        Distil(encoder(), DistilConfig(**values), StoredFeatures(rows))


def test_the_case_of_the_doctor_has_a_queue_that_is_partly_full() -> None:
    assert len(FEATURES) > QUEUE
