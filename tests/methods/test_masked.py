"""Methods that mask patches: settings in the papers' formulas, masks as draws, what is exported."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from oracles import selfsupervised as oracle
from small import HALF, normal
from torch import Tensor, nn

from selfsup.config import (
    DINOv2Config,
    EncoderConfig,
    LocalViewsConfig,
    MAEConfig,
    TeacherConfig,
    ViewsConfig,
)
from selfsup.core.errors import UserError
from selfsup.core.numerics import normalize
from selfsup.core.seeds import StepInfo
from selfsup.doctor.cases import CASES, VIT
from selfsup.doctor.certificate import BATCH, FIRST, prepare
from selfsup.encoders.encoder import Encoder, build, export
from selfsup.encoders.patch_tokens import patch_pixels
from selfsup.methods.dinov2 import DINOv2, ImageAndPatchRows, masked_positions
from selfsup.methods.mae import MAE
from selfsup.methods.method import Method

Rows = list[list[float]]
VIEWS = ViewsConfig(size=16)


def vit(args: str = VIT.args) -> Encoder:
    torch.manual_seed(0)
    return build(EncoderConfig(name=VIT.name, args=args), 16)


def rows(x: Tensor) -> Rows:
    return [list(map(float, row)) for row in x.detach()]


def scores(x: Tensor, layer: Tensor) -> Rows:
    return rows(normalize(x) @ normalize(layer.detach()).T)


def dinov2(**settings: Any) -> DINOv2:
    return DINOv2(vit(), DINOv2Config(prototypes=5, hidden=4, dim=4, **settings)).double()


def shaken(method: DINOv2) -> DINOv2:
    """With a teacher and centres that are not those of the start."""
    with torch.no_grad():
        method.centre.copy_(normal(2, 5, seed=7))
        method.teacher_prototypes.copy_(normal(*method.prototypes.shape, seed=8))
        method.prototypes.copy_(normal(*method.prototypes.shape, seed=9))
    return method


def embeddings() -> ImageAndPatchRows:
    """Of six images, three views, two of them large, four patches that can be masked."""
    weights = torch.zeros(6, 2, 4, dtype=torch.float64)
    weights[0, 0, :2] = 1 / 2
    weights[3, 1, :3] = 1 / 3
    weights[5, 0, :1] = 1
    return ImageAndPatchRows(
        student=normal(6, 3, 4, seed=0),
        teacher=normal(6, 2, 4, seed=1),
        features=normal(6, 2, 16, seed=2),
        student_patches=normal(6, 2, 4, 4, seed=3),
        teacher_patches=normal(6, 2, 4, 4, seed=4),
        weights=weights,
    )


@pytest.mark.parametrize("heads", ["separate", "shared"])
def test_dinov2_is_dino_and_ibot_and_koleo_with_their_weights(heads: Any) -> None:
    method = shaken(
        dinov2(
            heads=heads,
            temperature=0.3,
            teacher_start=0.1,
            teacher_temperature=0.2,
            warmup=0.5,
            patches=0.7,
            koleo=0.2,
        )
    )
    z, images, patches = embeddings(), method.prototypes[0], method.prototypes[-1]
    assert len(method.prototypes) == (1 if heads == "shared" else 2)
    learnt = [scores(z.student[:, v], images) for v in range(3)]
    taught = [scores(z.teacher[:, v], method.teacher_prototypes[0]) for v in range(2)]
    of_images = oracle.dino(learnt, taught, method.centre[0].tolist(), 0.3, 0.15)
    of_patches = oracle.ibot(
        scores(z.student_patches.flatten(0, 2), patches),
        scores(z.teacher_patches.flatten(0, 2), method.teacher_prototypes[-1]),
        method.centre[1].tolist(),
        (z.weights.flatten() / 12).tolist(),  # the mean over all twelve large views
        0.3,
        0.15,
    )
    spread = sum(oracle.koleo(rows(z.features[:, v])) for v in range(2))
    expected = of_images + 0.7 * of_patches + 0.2 * spread
    assert method.loss(z, None, StepInfo(5, 20, 0)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("heads", ["separate", "shared"])
def test_centres_are_of_large_views_and_of_masked_patches_alone(heads: Any) -> None:
    teacher = TeacherConfig(momentum=0.9, final=0.9)
    method = shaken(dinov2(heads=heads, centre=0.7, teacher=teacher))
    z, before, layer = embeddings(), method.centre.tolist(), method.teacher_prototypes.clone()
    method.after_step(z, None, HALF)
    taught = [scores(z.teacher[:, v], layer[0]) for v in range(2)]
    assert method.centre[0].tolist() == pytest.approx(oracle.dino_centre(before[0], taught, 0.7))
    masked = scores(z.teacher_patches[z.weights > 0], layer[-1])
    assert method.centre[1].tolist() == pytest.approx(oracle.dino_centre(before[1], [masked], 0.7))
    torch.testing.assert_close(method.teacher_prototypes, 0.9 * layer + 0.1 * method.prototypes)


def test_prototypes_rest_at_first_and_decay_and_all_but_the_token_have_a_teacher() -> None:
    method = dinov2(frozen=0.2)
    assert method.frozen_parameters(StepInfo(1, 10, 0)) == [method.prototypes]
    assert method.frozen_parameters(StepInfo(2, 10, 0)) == []
    assert method.loss_decays
    counts = [sum(p.numel() for p in m.parameters()) for m in (method, method.teacher)]
    assert counts[0] - 2 * counts[1] == method.mask_token.numel() + method.prototypes.numel()


def test_patches_in_use_are_counted_beside_images() -> None:
    method = shaken(dinov2())
    signs = method.signs(embeddings(), None, HALF)
    assert 1 <= signs["patch_prototypes"] <= 5
    assert {"std", "rank", "gap", "nearest", "prototypes"} <= signs.keys()


def test_masked_positions_come_first_and_share_the_weight_of_their_view() -> None:
    masks = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]).bool()
    positions, weights = masked_positions(masks, 0.5)
    assert positions[0].tolist() == [1, 3, 4]
    assert positions[2, 0] == 0
    assert weights.tolist() == [[pytest.approx(1 / 3)] * 3, [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("case", ["dinov2", "mae"])
def test_processes_and_micro_batches_see_rows_of_the_masks_of_the_global_batch(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, batches = prepare(CASES[case])
    batch = batches[FIRST]
    whole = step.method.draw(BATCH, step.views, step.info(batch))[0]
    assert len(whole) == BATCH
    assert torch.equal(step.inputs(batch, slice(4, 8))[-1], whole[4:8])
    monkeypatch.setattr("selfsup.training.step.world", lambda: (2, 4))
    quarter = replace(batch, step=FIRST, positions=batch.positions[:4])
    other, _ = prepare(CASES[case])
    assert torch.equal(other.inputs(quarter, slice(1, 3))[-1], whole[9:11])
    next_step = step.method.draw(BATCH, step.views, StepInfo(FIRST + 1, 10, 0))[0]
    assert not torch.equal(next_step, whole)
    other_seed = step.method.draw(BATCH, step.views, StepInfo(FIRST, 10, 1))[0]
    assert not torch.equal(other_seed, whole)


def test_masks_are_drawn_anew_at_each_step_and_once_for_all_micro_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, batches = prepare(CASES["mae"], micro_batches=4)
    drawn: list[int] = []
    draw = step.method.draw

    def counting(*args: Any) -> Any:
        drawn.append(args[2].step)
        return draw(*args)

    monkeypatch.setattr(step.method, "draw", counting)
    for i in (0, 1):
        step(batches[i])
    assert drawn == [0, 1]


def test_fields_are_of_the_view_and_the_network_they_are_named_after() -> None:
    method: Any = dinov2()
    with torch.no_grad():
        for i, parameter in enumerate(method.teacher.parameters()):
            parameter.add_(normal(*parameter.shape, seed=i) / 9)
    x, local = normal(5, 2, 3, 16, 16, seed=1), normal(5, 2, 3, 8, 8, seed=2)
    z = method.embed((x, local, torch.zeros(5, 2, 16, dtype=torch.bool)))  # nothing is masked
    views = [*x.unbind(1), *local.unbind(1)]
    student = torch.stack([method.heads[0](method.encoder(view)) for view in views], 1)
    torch.testing.assert_close(z.student, student)
    features = torch.stack([method.encoder(view) for view in views[:2]], 1)
    torch.testing.assert_close(z.features, features)
    encoder, head, patch_head = method.teacher.network
    torch.testing.assert_close(z.teacher, torch.stack([head(encoder(v)) for v in views[:2]], 1))
    for field, network, last in (
        (z.student_patches, method.encoder, method.heads[1]),
        (z.teacher_patches, encoder, patch_head),
    ):
        patches = [network.model.forward_features(v)[:, 1:9] for v in views[:2]]
        torch.testing.assert_close(field, torch.stack([last(p) for p in patches], 1))
    assert not z.weights.any()
    trained = {name for name, value in zip(z._fields, z, strict=True) if value.requires_grad}
    assert trained == {"student", "features", "student_patches"}


def test_the_teacher_sees_what_the_student_does_not() -> None:
    method = dinov2()
    x = normal(2, 2, 3, 16, 16, seed=1)
    masks = torch.zeros(2, 2, 16, dtype=torch.bool)
    masks[0, 0, :4] = True  # the uppermost patches of the first view
    repainted = x.clone()
    repainted[0, 0, :, :4] = normal(3, 4, 16, seed=2)
    before, after = (method.embed((views, masks)) for views in (x, repainted))
    for field in ("student", "features", "student_patches"):
        assert torch.equal(getattr(before, field), getattr(after, field)), field
    assert not torch.allclose(before.teacher[0, 0], after.teacher[0, 0])
    assert not torch.allclose(before.teacher_patches[0, 0], after.teacher_patches[0, 0])


def test_the_encoder_of_mae_sees_a_quarter_and_its_error_is_that_of_the_other_patches() -> None:
    method = MAE(vit(), MAEConfig(depth=1, dim=16, heads=2)).double()
    x = normal(3, 1, 3, 16, 16, seed=1)
    (order,) = method.draw(3, (replace(VIEWS, views=1),), HALF)
    seen: list[tuple[int, ...]] = []
    method.encoder.model.blocks.register_forward_hook(lambda *call: seen.append(call[2].shape))
    painted: list[Tensor] = []
    method.decoder.register_forward_hook(lambda *call: painted.append(call[2]))
    z = method.embed((x, order))
    assert seen == [(3, 1 + 4, 16)]  # the class token and 4 of 16 patches
    pixels = patch_pixels(method.encoder, x[:, 0])
    for i, patches in enumerate(painted[0]):
        hidden = pixels[i][order[i, 4:]]
        assert z.error[i].item() == pytest.approx(oracle.mae([rows(patches)], [rows(hidden)]))
    assert method.loss(z, None, HALF).item() == pytest.approx(z.error.mean().item())
    assert method.signs(z, None, HALF).keys() == {"std", "rank", "cosine"}


def test_a_decoder_of_mae_knows_the_place_of_each_patch() -> None:
    method = MAE(vit(), MAEConfig(depth=1, dim=16, heads=2)).double()
    prefix, visible = normal(1, 1, 16, seed=1), normal(1, 4, 16, seed=2)
    order = torch.arange(16)[None]
    painted = method.decoder(prefix, visible, order, (4, 4))
    other = order.clone()
    other[0, [4, 5]] = order[0, [5, 4]]  # two masked patches in another order
    swapped = method.decoder(prefix, visible, other, (4, 4))
    torch.testing.assert_close(swapped[:, [1, 0]], painted[:, :2])
    assert not torch.allclose(painted[:, 0], painted[:, 1])
    moved = order.roll(1, 1)
    assert not torch.allclose(method.decoder(prefix, visible, moved, (4, 4)), painted)


@pytest.mark.parametrize("name", ["dinov2", "dinov2 student", "mae"])
def test_the_plain_network_of_timm_is_exported(name: str, tmp_path: Path) -> None:
    makers: dict[str, Callable[[], Method]] = {
        "dinov2": dinov2,
        "dinov2 student": lambda: dinov2(teacher=TeacherConfig(export="student")),
        "mae": lambda: MAE(vit(), MAEConfig(depth=1, dim=16, heads=2)),
    }
    method = makers[name]()
    teachers = name == "dinov2"
    assert (method.exported is method.encoder) != teachers
    export(method.float().exported, tmp_path, VIEWS)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert loaded.state_dict().keys() == vit().model.state_dict().keys()
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == VIT.name
    x = normal(2, 3, 16, 16).float()
    torch.testing.assert_close(loaded.eval()(x), method.exported.eval()(x))


RESNET = EncoderConfig(name="test_resnet")
HEADED = "{embed_dim: 16, depth: 1, num_heads: 2, patch_size: 4}"


def with_embedding_head() -> Encoder:
    encoder = vit(HEADED)
    encoder.set_head(8)
    return encoder


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "dinov2 resnet": (
        lambda: DINOv2(build(RESNET, 16), DINOv2Config()),
        "DINOv2 masks patches, and ResNet is not a ViT, DeiT, EVA or DINOv3 of timm",
    ),
    "mae resnet": (
        lambda: MAE(build(RESNET, 16), MAEConfig()),
        "MAE masks patches, and ResNet is not a ViT or DeiT of timm",
    ),
    "temperature": (lambda: dinov2(temperature=0), "--method.temperature must be above 0"),
    "centre": (lambda: dinov2(centre=3), "--method.centre must be from 0 to 1"),
    "no views masked": (lambda: dinov2(masked=0), "--method.masked must be above 0, at most 1: 0"),
    "too many masked": (lambda: dinov2(masked=1.5), "must be above 0, at most 1: 1.5"),
    "mask of all": (lambda: dinov2(mask=(0.5, 1.0)), "must be two fractions between 0 and 1"),
    "mask of none": (lambda: dinov2(mask=(0.0, 0.5)), "the smaller first: 0.0 0.5"),
    "mask upside down": (lambda: dinov2(mask=(0.5, 0.1)), "the smaller first: 0.5 0.1"),
    "koleo": (lambda: dinov2(koleo=-1), "--method.koleo must be 0 or more, not -1"),
    "patches": (lambda: dinov2(patches=-1), "--method.patches must be 0 or more, not -1"),
    "shared heads of two widths": (
        lambda: DINOv2(with_embedding_head(), DINOv2Config(heads="shared")),
        "they are 8 and 16 wide; use --method.heads separate",
    ),
    "one patch": (
        lambda: dinov2().draw(4, (replace(VIEWS, size=4),), HALF),
        "a view of 4 pixels has 1; use a larger --views.size or smaller patches",
    ),
    "one view": (
        lambda: dinov2().embed((normal(2, 1, 3, 16, 16), torch.zeros(2, 1, 16).bool())),
        "predicts one view from another; --views.views is 1",
    ),
    "mae masks all": (lambda: MAE(vit(), MAEConfig(masked=1)), "between 0 and 1, not 1"),
    "mae masks none": (lambda: MAE(vit(), MAEConfig(masked=0)), "between 0 and 1, not 0"),
    "mae depth": (lambda: MAE(vit(), MAEConfig(depth=0)), "--method.depth must be above 0"),
    "mae heads": (
        lambda: MAE(vit(), MAEConfig(dim=16, heads=3)),
        "--method.dim 16 must be a multiple of 4 and of --method.heads 3",
    ),
    "mae width": (lambda: MAE(vit(), MAEConfig(dim=10, heads=2)), "must be a multiple of 4"),
    "mae sees nothing": (
        lambda: MAE(vit(), MAEConfig(masked=0.99)).draw(4, (VIEWS,), HALF),
        "--method.masked 0.99 of 16 patches leaves 0 visible",
    ),
    "mae sees all": (
        lambda: MAE(vit(), MAEConfig(masked=0.01)).draw(4, (VIEWS,), HALF),
        "--method.masked 0.01 of 16 patches leaves 16 visible",
    ),
    "mae of two views": (
        lambda: MAE(vit(), MAEConfig()).embed((normal(2, 2, 3, 16, 16), torch.zeros(2, 16).long())),
        "MAE reconstructs one view; --views.views is 2",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_refused_by_name(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        make()


def test_local_views_are_not_masked() -> None:
    views = ViewsConfig(size=16, local=LocalViewsConfig(views=2, size=8))
    step, batches = prepare(CASES["dinov2"]._replace(views=views))
    large, local, masks = step.inputs(batches[FIRST], slice(0, 16))
    assert (large.shape, local.shape) == ((16, 2, 3, 16, 16), (16, 2, 3, 8, 8))
    assert masks.shape == (16, 2, 16)
    assert step(batches[FIRST]).isfinite()


def test_every_encoder_of_masked_patches_is_trained() -> None:
    names = {
        "vit_small_patch14_reg4_dinov2": "{embed_dim: 12, depth: 1, num_heads: 3}",
        "deit_tiny_distilled_patch16_224": "{embed_dim: 12, depth: 1, num_heads: 3}",
        "eva02_tiny_patch14_224": "{embed_dim: 24, depth: 1, num_heads: 2, patch_size: 4}",
        "vit_small_patch16_dinov3": "{embed_dim: 24, depth: 1, num_heads: 2, patch_size: 4}",
    }
    for case in ("dinov2", "mae"):
        for name, args in names.items():
            if case == "mae" and not name.startswith(("vit_small_patch14", "deit")):
                continue
            step, batches = prepare(CASES[case], EncoderConfig(name=name, args=args))
            assert step(batches[0]).isfinite(), (case, name)
            assert isinstance(step.method.exported.model, nn.Module)
