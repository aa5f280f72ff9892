"""Settings of the whole test run."""

import signal
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from selfsup.core import compiled

# One thread: tests are tiny, and threads of two workers would get in each other's way.
torch.set_num_threads(1)
# Without deadlines: others may use the machine meanwhile.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
# A shell's script in the background ignores Ctrl-C, and so would every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--all` also runs grids: more cases of what other tests cover once."""
    parser.addoption("--all", action="store_true", help="run the grids of slow cases, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out grids, unless all are asked for."""
    if config.getoption("--all"):
        return
    grids = [item for item in items if item.get_closest_marker("grid")]
    config.hook.pytest_deselected(items=grids)
    items[:] = [item for item in items if item not in grids]


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Give tests to whichever worker is free, but those of a file with a costly fixture to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return file if file.endswith(TOGETHER) else nodeid


TOGETHER = ("training/test_step.py", "doctor/test_certificate.py")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """Called by xdist when there are workers."""
    return Scheduler(config, log)


@pytest.fixture(params=["torch", "numba"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test once without compiled loops and once with them."""
    name = str(request.param)
    monkeypatch.setattr(compiled, "available", lambda: name == "numba")
    return name
