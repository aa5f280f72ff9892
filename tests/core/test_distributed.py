"""What a launcher asks for and a run cannot do is refused before anything starts."""

import os
from unittest.mock import patch

import pytest

from selfsup.core import distributed
from selfsup.core.errors import UserError


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP, which splits weights"),
        ("ACCELERATE_USE_DEEPSPEED", "True", "DeepSpeed, which splits weights"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "parallelism config"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "over 4 steps.*--micro-batch"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8 precision: choose no, fp16 or bf16"),
    ],
)
def test_what_would_train_wrongly_is_refused(name: str, value: str, words: str) -> None:
    with patch.dict(os.environ, {name: value}), pytest.raises(UserError, match=words):
        distributed.start()


def test_usual_launchers_pass() -> None:
    usual = {
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_MIXED_PRECISION": "no",
    }
    with patch.dict(os.environ, usual):
        assert distributed.start().num_processes == 1
