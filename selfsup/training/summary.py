"""The last lines of a training command: what to try next."""

import shlex

from selfsup.config import FinetuneConfig, PretrainConfig
from selfsup.core.distributed import is_main


def print_next(config: PretrainConfig | FinetuneConfig) -> None:
    """Print three commands for the run that has finished, each in one line, to be pasted."""
    if is_main():
        print("try next:", *(f"  {line}" for line in next_commands(config)), sep="\n", flush=True)


def next_commands(config: PretrainConfig | FinetuneConfig) -> list[str]:
    """Return commands that judge the encoder of a run, and use it.

    Capitals stand for images that only the user can name.
    """
    run, data = shlex.quote(config.out), shlex.quote(config.data)
    labelled = shlex.quote(config.probe.data) if config.probe.data else "LABELLED"
    index = f"selfsup index --model {run} --data {data}"
    if isinstance(config, FinetuneConfig):
        judge = f"selfsup retrieval --model {run} --data OTHER_LABELLED"
        return [judge, index, f"selfsup search {run} IMAGE"]
    out = shlex.quote(f"{config.out.rstrip('/')}-finetuned")
    return [
        f"selfsup knn --model {run} --data {labelled}",
        f"selfsup finetune --data LABELLED --init {run} --out {out}",
        index,
    ]
