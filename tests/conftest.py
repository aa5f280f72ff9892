"""Settings of the whole test run."""

import pytest
import torch

from selfsup.core import compiled

# One thread: tests are tiny, and threads of two workers would get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(params=["torch", "numba"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test once without compiled loops and once with them."""
    name = str(request.param)
    monkeypatch.setattr(compiled, "available", lambda: name == "numba")
    return name
