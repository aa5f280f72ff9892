"""What distillation brought: teacher, student, and a student without the teacher, on one set.

python tools/compare_distilled.py --teacher runs/large --student runs/small \
    --baseline runs/small-alone --data unseen.npz
"""

from selfsup.config import CompareDistilledConfig
from selfsup.core.cli import run as launch


def main(config: CompareDistilledConfig) -> None:
    """Measure, print the table or the JSON, write the record if a file is named."""
    import json

    from selfsup.core.distributed import is_main
    from selfsup.evaluate.distilled import compare_distilled

    comparison = compare_distilled(config)
    if not is_main():
        return
    print(json.dumps(comparison.to_dict(), indent=2) if config.json else comparison.table())
    file = comparison.save()
    if file and not config.json:
        print(f"written to {file}")


def command() -> None:
    """Run from the command line."""
    launch(main, CompareDistilledConfig)


if __name__ == "__main__":
    command()
