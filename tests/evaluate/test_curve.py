"""What is exported because of the curve of a validation, and the sentence that says why."""

from typing import Any

import pytest

from selfsup.evaluate.curve import BARE, KEPT, MAP, Outcome, best_probe, probes_since_best


def curve(*values: float, name: str = MAP) -> list[dict[str, float]]:
    """Probes every 10 steps from the start on."""
    return [{"step": 10 * i, name: value} for i, value in enumerate(values)]


def outcome(*values: float, **more: Any) -> Outcome:
    usual: dict[str, Any] = {
        "last": 10 * (len(values) - 1),
        "total": 10 * (len(values) - 1),
        "export": "best",
    }
    names: dict[str, Any] = {
        "images": "12 held-out classes",
        "kept_images": "cifar.npz",
        "kept": [],
    }
    return Outcome(**({"probes": curve(*values)} | usual | names | more))


@pytest.mark.parametrize(
    ("values", "step"),
    [((0.1, 0.3, 0.2), 10), ((0.1, 0.3, 0.3), 10), ((0.3, 0.3, 0.3), 0), ((0.1, 0.2, 0.3), 20)],
)
def test_the_best_has_the_highest_figure_and_is_the_first_of_equal_ones(
    values: tuple[float, ...], step: int
) -> None:
    assert best_probe(curve(*values))["step"] == step
    assert outcome(*values).exported == step


def test_the_best_until_a_step_does_not_know_what_follows() -> None:
    probes = curve(0.1, 0.3, 0.2, 0.4)
    assert [best_probe(probes, until=step)["step"] for step in (0, 9, 10, 25, 30)] == [
        *(0, 0, 10, 10, 30)
    ]


@pytest.mark.parametrize(
    ("values", "count"), [((0.1,), 0), ((0.1, 0.2), 0), ((0.2, 0.2), 1), ((0.1, 0.3, 0.2, 0.3), 2)]
)
def test_probes_without_a_better_figure_are_counted(values: tuple[float, ...], count: int) -> None:
    assert probes_since_best(curve(*values)) == count


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            outcome(0.287, 0.412, 0.398, last=20, total=1000),
            "exported the encoder of step 10 of 1,000: MAP@R .412 on 12 held-out classes; the last "
            "had .398, the start had .287",
        ),
        (
            outcome(0.287, 0.398, 0.412),
            "exported the encoder of step 20 of 20: MAP@R .412 on 12 held-out classes, the best of "
            "3 probes; the start had .287",
        ),
        (
            outcome(0.412, 0.405, 0.398),
            "fine-tuning did not help: exported the start itself, MAP@R .412 on 12 held-out "
            "classes; the best after it had .405, at step 10. --probe.export last exports the "
            "trained one",
        ),
        (
            outcome(0.287, 0.412, 0.398, export="last"),
            "exported the encoder of step 20 of 20: MAP@R .398 on 12 held-out classes, as "
            "--probe.export last asks; the start had .287, step 10 .412",
        ),
        (
            outcome(0.412, 0.405, 0.398, export="last"),
            "exported the encoder of step 20 of 20: MAP@R .398 on 12 held-out classes, as "
            "--probe.export last asks; the start had .412: fine-tuning did not help",
        ),
        (
            outcome(last=40, total=40),
            "exported the encoder of the last step, 40: nothing was measured on the way to choose "
            "another one by",
        ),
    ],
)
def test_a_sentence_says_which_encoder_is_exported_and_why(made: Outcome, sentence: str) -> None:
    assert made.sentences() == [sentence]


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ((0.287, 0.261, 0.1), "forgot: MAP@R on cifar.npz .287 -> .261"),
        ((0.287, 0.287, 0.1), "forgot nothing: MAP@R on cifar.npz .287 -> .287"),
        ((0.287, 0.3, 0.1), "forgot nothing: MAP@R on cifar.npz .287 -> .300"),
    ],
)
def test_what_the_exported_encoder_forgot_is_said(kept: tuple[float, ...], sentence: str) -> None:
    made = outcome(0.1, 0.3, 0.2, kept=curve(*kept, name=KEPT + MAP))
    assert made.sentences()[1:] == [sentence]


@pytest.mark.parametrize(("bare", "warned"), [(0.41, True), (0.4, False), (0.2, False)])
def test_a_start_that_was_better_without_its_new_head_is_named(bare: float, warned: bool) -> None:
    probes = curve(0.3, 0.4)
    probes[0][BARE] = bare
    sentences = outcome(last=10, total=10, probes=probes).sentences()
    assert f"the start had .300 (.{round(bare * 1000)} without its new head)" in sentences[0]
    assert len(sentences) == 1 + warned
    if warned:
        assert "the start without its new embedding head had .410, which is more" in sentences[1]


def test_what_is_forgotten_is_measured_from_the_start_without_a_new_head() -> None:
    kept = curve(0.1, 0.2, name=KEPT + MAP)
    kept[0][KEPT + BARE] = 0.3
    made = outcome(0.1, 0.3, kept=kept)
    assert made.sentences()[1:] == ["forgot: MAP@R on cifar.npz .300 -> .200"]
