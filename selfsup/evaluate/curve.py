"""The curve of a validation: which probe was the best, and what is exported because of it.

Every answer is a function of the probes in the log, so that a run that was killed and goes on
answers as an unbroken one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAP, RECALL, KNN = "map_at_r", "recall_at_1", "knn"
"""Names in the log: MAP@R, Recall@1 and leave-one-out k-NN accuracy."""
KEPT = "kept_"
"""Before the same names, of --probe.keep."""
BARE = "map_at_r_without_head"
"""MAP@R of the start without its new embedding head: what the weights of --init know."""
Probe = dict[str, float]
"""A line of the log: its step and its figures."""


def best_probe(probes: Sequence[Probe], *, until: float = float("inf")) -> Probe:
    """Return the probe with the highest MAP@R up to a step, the first of equal ones."""
    return max((probe for probe in probes if probe["step"] <= until), key=lambda probe: probe[MAP])


def probes_since_best(probes: Sequence[Probe]) -> int:
    """Count the probes after the best one.

    >>> probes_since_best([{"step": 0, MAP: 0.3}, {"step": 10, MAP: 0.4}, {"step": 20, MAP: 0.4}])
    1
    """
    return len(probes) - 1 - probes.index(best_probe(probes))


@dataclass(frozen=True)
class Outcome:
    """What a run exports, and why."""

    probes: list[Probe]
    """With figures of the validation images, ascending by step; empty without such images."""
    kept: list[Probe]
    """With figures of --probe.keep."""
    last: int
    """Step after which training ended."""
    total: int
    """Length of the run in steps."""
    export: str
    """Which one was asked for: best or last."""
    images: str
    """Name of the validation images: "12 held-out classes"."""
    kept_images: str
    """Name of the images of --probe.keep."""

    @property
    def exported(self) -> int:
        """Step of the exported encoder."""
        if self.export == "last" or not self.probes:
            return self.last
        return int(best_probe(self.probes)["step"])

    def sentences(self) -> list[str]:
        """Say which encoder was exported and why, whether training helped, what was forgotten."""
        if not self.probes:
            why = "nothing was measured on the way to choose another one by"
            sentences = [f"exported the encoder of the last step, {self.last:,}: {why}"]
        else:
            sentences = [self._choice(), *self._without_head()]
        return [*sentences, *self._forgotten()]

    def _choice(self) -> str:
        at = {int(probe["step"]): probe[MAP] for probe in self.probes}
        best, step = int(best_probe(self.probes)["step"]), self.exported
        value = f"MAP@R {short(at[step])} on {self.images}"
        of_start = f"the start had {short(at[0])}" if 0 in at else "the start was not measured"
        bare = self._bare(self.probes)
        of_start += f" ({short(bare)} without its new head)" if bare else ""
        if step == 0 and self.last > 0:
            after = [probe for probe in self.probes if probe["step"] > 0]
            highest = best_probe(after)
            return (
                f"fine-tuning did not help: exported the start itself, {value}; the best after it "
                f"had {short(highest[MAP])}, at step {int(highest['step']):,}. "
                "--probe.export last exports the trained one"
            )
        exported = f"exported the encoder of step {step:,} of {self.total:,}: {value}"
        if self.export == "last":
            exported += f", as --probe.export last asks; {of_start}"
            if best not in (0, step):
                exported += f", step {best:,} {short(at[best])}"
            worse = 0 in at and at[step] < at[0]
            return exported + (": fine-tuning did not help" if worse else "")
        if step == self.last:
            return f"{exported}, the best of {len(at)} probes; {of_start}"
        return f"{exported}; the last had {short(at[self.last])}, {of_start}"

    def _without_head(self) -> list[str]:
        """Warn where the start was better before it got a new head."""
        bare = self._bare(self.probes)
        value = next(probe[MAP] for probe in self.probes if probe["step"] == self.exported)
        if bare is None or bare <= value:
            return []
        return [
            f"the start without its new embedding head had {short(bare)}, which is more: "
            "--method.dim 0 fine-tunes it without one"
        ]

    def _bare(self, probes: Sequence[Probe], prefix: str = "") -> float | None:
        return next((probe[prefix + BARE] for probe in probes if prefix + BARE in probe), None)

    def _forgotten(self) -> list[str]:
        at = {int(probe["step"]): probe[KEPT + MAP] for probe in self.kept}
        if 0 not in at or self.exported not in at:
            return []
        before, after = self._bare(self.kept, KEPT) or at[0], at[self.exported]
        word = "forgot" if after < before else "forgot nothing"
        return [f"{word}: MAP@R on {self.kept_images} {short(before)} -> {short(after)}"]


def short(value: float) -> str:
    """Format a figure from 0 to 1 with three digits: .412."""
    return f"{value:.3f}".removeprefix("0")
