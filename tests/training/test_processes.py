"""Several processes agree before the first step, and tell the first cause of an end, once."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launch import ROOT, environment, run, torchrun
from training.test_stopping import (
    ENDLESS,
    FLAGS,
    arrays,
    command,
    ranks,
    started,
    status_of,
    wait_for,
)

pytestmark = pytest.mark.slow

OTHER = {
    "images": ("--data", "other.npz", "number of images"),
    "pixels": ("--data", "pixels.npz", "content of images"),
    "seed": ("--seed", "7", "seed"),
    "rate": ("--optim.lr", "0.5", "optim.lr"),
    "steps": ("--steps", "9", "number of steps"),
    "output": ("--out", "elsewhere", "out"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_process_with_other_work_is_named_before_the_first_step(
    tmp_path: Path, kind: str
) -> None:
    data = arrays(tmp_path)
    with np.load(data) as whole:
        np.savez(tmp_path / "other.npz", images=whole["images"][:16])
        np.savez(tmp_path / "pixels.npz", images=whole["images"] // 2)
    flag, value, key = OTHER[kind]
    value = str(tmp_path / value) if flag in ("--data", "--out") else value
    script = tmp_path / "one_differs.py"
    script.write_text(
        "import os, sys\n"
        f"if os.environ['RANK'] == '1': sys.argv += [{flag!r}, {value!r}]\n"
        "from recipes.pretrain_simclr import command\n"
        "command()\n"
    )
    out = tmp_path / "run"
    flags = ["--out", str(out), *FLAGS, "--steps", "4", "--data", str(data)]
    done = run(*torchrun(2), script, *flags)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert f"process 1 has another {key} than process 0" in errors[0]
    assert not (out / "log.jsonl").exists()
    assert not (out / "checkpoints").exists()


def test_machines_that_share_no_folder_are_named_before_the_first_step(tmp_path: Path) -> None:
    data = arrays(tmp_path)
    script = tmp_path / "impatient.py"
    script.write_text(
        "from selfsup.training import agreement\n"
        "agreement.PATIENCE = 1\n"
        "from recipes.pretrain_simclr import command\n"
        "command()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for node in range(2):
        (tmp_path / f"node{node}").mkdir()
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        where = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        flags = ["--out", "runs/a", *FLAGS, "--steps", "4", "--data", str(data)]
        agents.append(
            subprocess.Popen(
                [*launcher, "--node-rank", str(node), *where, str(script), *flags],
                cwd=tmp_path / f"node{node}",
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    told = [agent.communicate(timeout=120)[1] for agent in agents]
    assert all(agent.returncode for agent in agents)
    for text in told:  # on each machine's own terminal
        (error,) = (line for line in text.splitlines() if line.startswith("error: "))
        assert "process 1 on " in error
        assert "does not see what process 0 writes to runs/a" in error
    assert not list(tmp_path.glob("node*/runs/a/log.jsonl"))
    assert not list(tmp_path.glob("node*/runs/a/.shared-*"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--batch", "9"), "does not divide among 2 processes"),
        (("--keep", "0"), "--keep must be above 0"),
        (("--optim.name", "nothing"), "nothing"),
        (("--probe.data", "no-such-file"), "no-such-file does not exist"),
    ],
)
def test_a_mistake_is_told_once_on_two_processes(
    tmp_path: Path, flags: tuple[str, str], sentence: str
) -> None:
    args = command(arrays(tmp_path), tmp_path / "run", "--steps", "4", *flags, processes=2)
    done = run(*args)
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_that_one_process_alone_finds_is_told_by_it(tmp_path: Path, rank: int) -> None:
    script = tmp_path / "one_fails.py"
    script.write_text(
        "import os\n"
        "import selfsup.training.step as step\n"
        "from selfsup.core.errors import UnusableError\n"
        "real = step.Stepper.__call__\n"
        "def call(self, batch):\n"
        f"    if batch.step == 3 and os.environ['RANK'] == '{rank}':\n"
        "        raise UnusableError('the moon is full')\n"
        "    return real(self, batch)\n"
        "step.Stepper.__call__ = call\n"
        "from recipes.pretrain_simclr import command\n"
        "command()\n"
    )
    flags = ["--out", str(tmp_path / "run"), *FLAGS, "--steps", "9"]
    done = run(*torchrun(2), script, *flags, "--data", str(arrays(tmp_path)))
    assert done.returncode != 0
    assert done.stderr.count("error: the moon is full") == 1
    assert "Connection closed" not in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_stopped_is_named_and_ends_the_run(tmp_path: Path, rank: int) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    with started(command(data, out, *ENDLESS, processes=2)) as process:
        wait_for(out, 3, process)
        stopped = ranks(process)[rank]
        os.kill(stopped, signal.SIGSTOP)
        text, _ = process.communicate(timeout=90)  # with 42 s of silence, on a busy machine
        assert process.returncode != 0
    assert f"waiting for process {rank} (pid {stopped} on " in text
    assert f"error: the run ends, since it has waited for process {rank} (pid {stopped}" in text
    if rank == 1:
        assert status_of(out)["exit_status"] == 1
        assert "waited for process 1" in str(status_of(out)["reason"])
    assert str(ROOT) in text


def test_figures_on_the_way_are_the_same_on_one_process_and_on_three(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (25, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "known.npz", images=images, labels=np.arange(25) % 3)
    flags = ["--data", str(tmp_path / "known.npz"), "--probe.data", str(tmp_path / "known.npz")]
    flags += ["--encoder.name", "test_vit", "--views.size", "32", "--optim.lr", "1e-9"]
    flags += ["--batch", "6", "--steps", "1", "--probe.every", "1", "--probe.k", "3", "--no-report"]
    found = []
    for processes in (1, 3):
        out = tmp_path / str(processes)
        script = ROOT / "recipes" / "pretrain_simclr.py"
        done = run(*torchrun(processes), script, "--out", out, *flags)
        assert done.returncode == 0, done.stderr
        lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
        found.append([line["knn"] for line in lines if "knn" in line])
    assert found[0] == found[1]
    assert len(found[0]) == 1
