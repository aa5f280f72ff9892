"""Pretrain an image encoder by distillation from a frozen teacher, on unlabelled images.

    selfsup pretrain --method distil --method.teacher runs/large --data images/ --out runs/small
    accelerate launch recipes/pretrain_distil.py --method.teacher runs/large --data images/ \
        --out runs/small

The teacher embeds every image once; a step then costs what a step without a teacher does, and one
view of an image is enough: twice as many images teach more than two views of each. In SEED
(Fang et al. 2021) EfficientNet-B0 has 67.6 % on ImageNet with a linear probe, and 42.2 % by MoCo v2
without a teacher.
"""

from dataclasses import dataclass

from selfsup.config import DistilConfig, OptimConfig, PretrainConfig, ViewsConfig
from selfsup.config.pipelines import DISTIL
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pretrain an image encoder by distillation from a frozen teacher."""

    FIRST = ("data", "method.teacher", *PretrainConfig.FIRST[1:])
    views: ViewsConfig = DISTIL
    method: DistilConfig = DistilConfig()
    optim: OptimConfig = OptimConfig(lr=2.0)  # for cosines, whose gradients are small


def main(config: Config) -> None:
    """Embed by the teacher, train, evaluate k-NN on the way if --probe.data is set, export."""
    from selfsup.data.open import training_source
    from selfsup.evaluate.probe import KNNProbe
    from selfsup.evaluate.teacher_features import open_teacher, prepare_teacher
    from selfsup.methods.distil import Distil
    from selfsup.report.sections import report_finished
    from selfsup.training.fill_in import fill_in
    from selfsup.training.pretrain import export, pretrain_steps
    from selfsup.training.run import Run
    from selfsup.training.start import starting_encoder

    config = fill_in(config)
    teacher = open_teacher(config.method.teacher)
    run = Run(config)
    student = starting_encoder(config)
    targets = prepare_teacher(run, training_source(config), config.method, teacher)
    method = Distil(student, config.method, targets)
    probe = KNNProbe(run, config.probe, config.views)

    # An ordinary loop: add to its body what should happen between steps.
    for step in pretrain_steps(run, method, config):
        probe(step, method.exported)

    export(run, method, config.views)
    report_finished(run)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
