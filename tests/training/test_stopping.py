"""Stopping a run by real signals, a dead launcher, and a second run in the same folder."""

import contextlib
import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from launch import PRETRAIN, ROOT, environment, logged, run, torchrun
from pictures import folder

pytestmark = pytest.mark.slow

FLAGS = (*PRETRAIN[:-2], "--log-every", "1", "--no-report", "--save-every", "1000")
ENDLESS = ("--steps", "100000")


def arrays(root: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    np.savez(root / "data.npz", images=images)
    return root / "data.npz"


def command(data: Path, out: Path, *more: str, processes: int = 1) -> list[str]:
    start = [sys.executable] if processes == 1 else torchrun(processes)
    script = str(ROOT / "recipes" / "pretrain_simclr.py")
    return [*start, script, "--data", str(data), "--out", str(out), *FLAGS, *more]


@contextlib.contextmanager
def started(args: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a session of its own; whatever is left of it is killed at the end."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        args,
        env=environment(SELFSUP_TEST_MARK=mark, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    MARKS[process.pid] = mark
    try:
        yield process
    finally:
        for pid in members(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


MARKS: dict[int, str] = {}
"""A word in the environment of all processes of a command, which launchers put in sessions."""


def members(process: subprocess.Popen[str]) -> dict[int, list[bytes]]:
    """The live processes of a command, with their environments."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if f"SELFSUP_TEST_MARK={MARKS[process.pid]}".encode() in words:
                found[int(entry.parent.name)] = words
    return found


def ranks(process: subprocess.Popen[str]) -> dict[int, int]:
    """Pid of each rank; readers are children of ranks, and have the same environment."""
    found: dict[int, int] = {}
    for pid, words in sorted(members(process).items()):
        rank = next((int(w[5:]) for w in words if w.startswith(b"RANK=")), None)
        if rank is not None:
            found.setdefault(rank, pid)
    return found


def wait_for(out: Path, steps: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while logged(out) < steps and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]


def status_of(out: Path) -> dict[str, object]:
    values = json.loads((out / "status.json").read_text())
    assert isinstance(values, dict)
    return values


def saved(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "checkpoints").iterdir())


def last_step(out: Path) -> int:
    return int(json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"])


@pytest.mark.parametrize(
    ("name", "status", "workers"),
    [("SIGTERM", 75, "0"), ("SIGUSR1", 75, "2"), ("SIGINT", 130, "2"), ("SIGHUP", 75, "0")],
)
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(
    tmp_path: Path, name: str, status: int, workers: str
) -> None:
    out = tmp_path / "run"
    data = arrays(tmp_path) if workers == "0" else folder(tmp_path / "images")
    with started(command(data, out, *ENDLESS, "--workers", workers)) as process:
        wait_for(out, 3, process)
        os.killpg(process.pid, getattr(signal, name))  # readers get it, too
        text, _ = process.communicate(timeout=60)
        assert process.returncode == status, text
    step = last_step(out)
    assert f"{name}: stopped after step {step}, whose checkpoint is written" in text
    assert "go on with: python" in text
    assert "Traceback" not in text
    assert saved(out) == [f"step-{step:08d}"]
    assert status_of(out)["state"] == "stopped"
    assert (status_of(out)["step"], status_of(out)["exit_status"]) == (step, status)
    assert not (out / ".writer.json").exists()


def weights(out: Path) -> str:
    newest = out / "checkpoints" / saved(out)[-1]
    files = ("model.safetensors", "optimizer.safetensors")
    return hashlib.sha256(b"".join((newest / name).read_bytes() for name in files)).hexdigest()


@pytest.mark.parametrize("whom", ["rank 1", "all", "launcher"])
def test_all_processes_stop_at_the_same_step_and_go_on_bit_for_bit(
    tmp_path: Path, whom: str
) -> None:
    data, out, unbroken = arrays(tmp_path), tmp_path / "run", tmp_path / "unbroken"
    steps = ("--steps", "150", "--optim.lr", "0.01")
    args = command(data, out, *steps, processes=2)
    with started(args) as process:
        wait_for(out, 3, process)
        if whom == "rank 1":
            os.kill(ranks(process)[1], signal.SIGTERM)
        elif whom == "all":
            for pid in members(process):
                os.kill(pid, signal.SIGTERM)
        else:
            process.terminate()
        text, _ = process.communicate(timeout=100)
        assert process.returncode != 0
    step = last_step(out)
    assert step < 150
    assert f"SIGTERM: stopped after step {step}, whose checkpoint is written" in text
    assert saved(out) == [f"step-{step:08d}"]
    assert status_of(out)["exit_status"] == 75
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {step}" in done.stdout
    whole = run(*command(data, unbroken, *steps, processes=2))
    assert whole.returncode == 0, whole.stderr
    assert weights(out) == weights(unbroken)


def test_a_second_signal_ends_at_once_and_damages_nothing(tmp_path: Path) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time, selfsup.training.step as step\n"
        "real = step.Stepper.__call__\n"
        "def call(self, batch):\n"
        "    if batch.step == 4: time.sleep(60)\n"
        "    return real(self, batch)\n"
        "step.Stepper.__call__ = call\n"
        "from recipes.pretrain_simclr import command\n"
        "command()\n"
    )
    flags = ("--data", str(data), "--out", str(out), *FLAGS, *ENDLESS, "--save-every", "3")
    with started([sys.executable, str(slow), *flags]) as process:
        wait_for(out, 4, process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 75
    assert saved(out) == ["step-00000003"]
    done = run(*command(data, out, "--steps", "6", "--save-every", "3"))
    assert "is gone" not in done.stderr
    assert done.returncode == 2  # the length of the run has changed, nothing else is wrong
    assert "steps 100000 -> 6" in done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_ends_when_its_launcher_is_killed(tmp_path: Path, processes: int) -> None:
    data, out = folder(tmp_path / "images"), tmp_path / "run"
    start = command(data, out, *ENDLESS, "--workers", "1", processes=2)
    start[start.index("--nproc_per_node") + 1] = str(processes)
    with started(start) as process:
        wait_for(out, 3, process)
        process.kill()
        process.wait()
        until = time.monotonic() + 15
        while members(process) and time.monotonic() < until:
            time.sleep(0.1)
        assert not members(process)
    assert status_of(out)["state"] == "stopped"
    assert saved(out) == [f"step-{last_step(out):08d}"]


@pytest.mark.parametrize("dead", [True, False])
def test_a_run_whose_terminal_is_closed_is_stopped_with_a_checkpoint(
    tmp_path: Path, dead: bool
) -> None:
    out = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        words = command(arrays(tmp_path), out, *ENDLESS)
        os.execvpe(words[0], words, environment(TERM="xterm"))
    until = time.monotonic() + 120
    while logged(out) < 3 and time.monotonic() < until:
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 65536)
    if dead:
        os.close(terminal)  # which sends SIGHUP, and makes every write an error
    else:
        os.kill(pid, signal.SIGHUP)
        with contextlib.suppress(OSError):  # when the process has ended
            while select.select([terminal], [], [], 60)[0] and os.read(terminal, 65536):
                pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    status = status_of(out)
    assert (status["state"], status["exit_status"], status["reason"]) == ("stopped", 75, "SIGHUP")
    assert last_step(out) == status["step"]


@pytest.mark.parametrize("ignored", [False, True])
def test_a_run_whose_output_nobody_reads_is_as_one_without_its_terminal(
    tmp_path: Path, ignored: bool
) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    words = [*(["nohup"] if ignored else []), *command(data, out, "--steps", "200")]
    with started(words) as process:
        wait_for(out, 2, process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=100) == (0 if ignored else 75)
    status = status_of(out)
    if ignored:
        assert (status["state"], status["step"]) == ("done", 200)
    else:
        assert (status["state"], status["reason"]) == ("stopped", "SIGHUP")
    assert last_step(out) == status["step"]
    assert f"step-{last_step(out):08d}" in saved(out)


def test_a_run_under_nohup_outlives_its_shell(tmp_path: Path) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    with started(command(data, out, *ENDLESS), SIGHUP="") as process:
        wait_for(out, 2, process)
    line = " ".join(command(data, tmp_path / "nohup", *ENDLESS[:1], "60"))
    shell = [
        "bash",
        "-c",
        f"nohup {line.replace('{', chr(39) + '{').replace('}', '}' + chr(39))} &",
    ]
    with started(shell) as process:
        process.wait(timeout=10)
        until = time.monotonic() + 100
        while logged(tmp_path / "nohup") < 60 and time.monotonic() < until:
            time.sleep(0.1)
        assert logged(tmp_path / "nohup") == 60


def test_a_second_run_in_the_folder_of_a_live_one_is_refused_by_pid(tmp_path: Path) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    with started(command(data, out, *ENDLESS)) as process:
        wait_for(out, 2, process)
        second = run(*command(data, out, *ENDLESS))
        assert second.returncode == 6
        assert f"is in use by process {process.pid} on " in second.stderr
        assert process.poll() is None
        process.kill()
        process.wait()
        status = run(sys.executable, str(ROOT / "tools" / "status.py"), str(out))
    assert status.stdout.startswith("gone after")  # at once, without waiting for a heartbeat
    assert "reason     its process was killed, or crashed\ncheckpoint none yet" in status.stdout
    third = run(*command(data, out, "--steps", "4"))
    assert third.returncode == 0, third.stderr
    assert "no checkpoint was written yet: the run begins again" in third.stdout
    assert f"process {process.pid} on " in third.stdout
    assert "is gone" in third.stdout


def test_the_status_command_says_how_a_run_is(tmp_path: Path) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    status = [sys.executable, str(ROOT / "tools" / "status.py"), str(out)]
    assert run(*status).returncode == 2
    with started(command(data, out, *ENDLESS)) as process:
        wait_for(out, 2, process)
        running = run(*status, "--exit-code")
        assert running.stdout.startswith("running after")
        assert running.returncode == 6
        process.send_signal(signal.SIGUSR1)
        process.wait(timeout=60)
    stopped = run(*status, "--exit-code")
    assert stopped.returncode == 75
    assert "reason     SIGUSR1" in stopped.stdout
    assert f"checkpoint of step {last_step(out)}\n" in stopped.stdout
    assert "go on with python" in stopped.stdout
    assert run(*status).returncode == 0
    values = status_of(out) | {"state": "running", "exit_status": None, "heartbeat": 1.0}
    (out / "status.json").write_text(json.dumps(values))
    gone = run(*status, "--exit-code")
    assert gone.returncode == 1
    assert gone.stdout.startswith("gone after")
    for text in ("", "null", "[]", '{"heartbeat": "x"}'):
        (out / "status.json").write_text(text)
        assert run(*status).returncode == 3


def slurm(root: Path, *, srun: str) -> dict[str, str]:
    """The environment of a job number 42, whose `scontrol` writes down what it is told."""
    folder = root / "bin"
    folder.mkdir()
    hosts = 'if [ "$1" = show ]; then echo 127.0.0.1; echo node2; exit; fi'
    scripts = {"srun": srun, "scontrol": f'{hosts}\necho "$@" >> {root}/scontrol'}
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "42",
        "SELFSUP_LAUNCH": f"{sys.executable} -m selfsup",
        "SELFSUP_STATUS": f"{sys.executable} -m selfsup status",
    }


def test_a_slurm_job_that_was_stopped_is_put_back_into_the_queue(tmp_path: Path) -> None:
    data, out = arrays(tmp_path), tmp_path / "run"
    more = slurm(tmp_path, srun='"$@"\n[ $? = 0 ]')  # replaces the status by 1
    job = [str(ROOT / "tools" / "slurm.sh"), "pretrain", "--data", str(data), "--out", str(out)]
    with started([*job, *FLAGS, *ENDLESS], **more) as process:
        wait_for(out, 2, process)
        os.kill(int(str(status_of(out)["pid"])), signal.SIGUSR1)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 75, text
    assert (tmp_path / "scontrol").read_text() == "requeue 42\n"
    with started([*job, *FLAGS, "--steps", "-1"], **more) as process:
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 1, text  # the run was refused before it began
    assert (tmp_path / "scontrol").read_text() == "requeue 42\n"


def test_a_slurm_job_of_several_nodes_is_requeued_and_ends_as_one_that_was_not(
    tmp_path: Path,
) -> None:
    data = arrays(tmp_path)
    task = 'SLURM_PROCID=$node SLURM_LOCALID=0 "$@"'  # one a node
    more = slurm(tmp_path, srun=f"for node in 0 1; do\n {task} &\ndone\nwait -n && wait -n") | {
        "ACCELERATE_USE_CPU": "true",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "2",
        "SLURM_TASKS_PER_NODE": "1(x2)",
    }
    weights = []
    for name in ("stopped", "unbroken"):
        out = tmp_path / name
        flags = ["pretrain", "--data", str(data), "--out", str(out), *FLAGS, "--steps", "60"]
        job = [str(ROOT / "tools" / "slurm.sh"), *flags]
        if name == "stopped":
            with started(job, **more) as process:
                wait_for(out, 2, process)
                os.kill(int(str(status_of(out)["pid"])), signal.SIGUSR1)
                text, _ = process.communicate(timeout=60)
                assert process.returncode == 75, text
        with started(job, **more) as process:
            text, _ = process.communicate(timeout=120)
            assert process.returncode == 0, text
        weights.append((out / "encoder" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert (tmp_path / "scontrol").read_text() == "requeue 42\n"


@pytest.mark.parametrize(
    ("end", "state", "status"),
    [("", "done", 0), ("raise OSError('x')", "failed", 1), ("break", "done", 0)],
)
def test_a_script_with_its_own_loop_has_a_status_too(
    tmp_path: Path, end: str, state: str, status: int
) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "import sys\n"
        "from recipes.pretrain_simclr import Config\n"
        "from selfsup.core.cli import parse\n"
        "from selfsup.methods.simclr import SimCLR\n"
        "from selfsup.training.fill_in import fill_in\n"
        "from selfsup.training.pretrain import pretrain_steps\n"
        "from selfsup.training.run import Run\n"
        "from selfsup.training.start import starting_encoder\n"
        "config = fill_in(parse(Config, sys.argv[1:]))\n"
        "run = Run(config)\n"
        "method = SimCLR(starting_encoder(config), config.method)\n"
        "for step in pretrain_steps(run, method, config):\n"
        f"    {end or 'pass'}\n"
    )
    out = tmp_path / "run"
    flags = ("--data", arrays(tmp_path), "--out", out, *FLAGS, "--steps", "3")
    done = run(sys.executable, script, *flags)
    assert done.returncode == status, done.stderr
    assert (status_of(out)["state"], status_of(out)["exit_status"]) == (state, status)
    assert not (out / ".writer.json").exists()
